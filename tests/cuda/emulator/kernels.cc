// Kernels on fibres: the blocks of a grid one after the other, the threads of a block in turns. See
// README.md.
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "cuda_runtime.h"
#include "scheduler.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

namespace {

constexpr std::size_t kStackBytes = 64 << 10;
constexpr std::size_t kMaxSharedBytes = 227 << 10;
constexpr int kWarp = 32;

struct Fibre {
  ucontext_t context;
  uint3 index{};
  bool done = false;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStackBytes]};
};

// A meeting of the threads of a mask in one warp; `round` tells one meeting from the next.
struct Meeting {
  int arrived = 0;
  std::uint64_t round = 0;
  unsigned votes = 0;
  std::uint64_t values[kWarp] = {};
};

struct BlockState {
  int threads = 0;
  int live = 0;
  int arrived = 0;
  std::uint64_t round = 0;
  std::vector<Meeting> warps;
  std::uint64_t progress = 0;
};

std::vector<std::unique_ptr<Fibre>> fibres;
ucontext_t scheduler;
int running = 0;
BlockState block;
const std::function<void()>* body = nullptr;
alignas(16) unsigned char shared_memory[kMaxSharedBytes];
bool failed = false;
std::mt19937 order(1);

void give_way() { swapcontext(&fibres[static_cast<std::size_t>(running)]->context, &scheduler); }

bool is_live(int thread) { return thread < block.threads && !fibres[static_cast<std::size_t>(thread)]->done; }

void release_block_if_all_are_there() {
  if (block.arrived > 0 && block.arrived == block.live) {
    block.arrived = 0;
    ++block.round;
  }
}

void start() {
  (*body)();
  Fibre& fibre = *fibres[static_cast<std::size_t>(running)];
  fibre.done = true;
  --block.live;
  ++block.progress;
  release_block_if_all_are_there();  // a thread that has ended is waited for no more
}

// Waits until all live threads of the mask are here.
void meet(unsigned mask) {
  Meeting& meeting = block.warps[static_cast<std::size_t>(running / kWarp)];
  const std::uint64_t round = meeting.round;
  ++meeting.arrived;
  ++block.progress;
  while (meeting.round == round) {
    int expected = 0;
    for (int i = 0; i < kWarp; ++i) {
      if ((mask >> i & 1u) != 0 && is_live(running / kWarp * kWarp + i)) ++expected;
    }
    if (meeting.arrived >= expected) {
      meeting.arrived = 0;
      ++meeting.round;
    } else {
      give_way();
    }
  }
}

// On its own: getcontext returns twice, as the compiler sees it.
__attribute__((noinline)) void prepare(Fibre& fibre, uint3 index) {
  fibre.index = index;
  fibre.done = false;
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStackBytes;
  fibre.context.uc_link = &scheduler;
  makecontext(&fibre.context, start, 0);
}

void run_block(uint3 index) {
  blockIdx = index;
  const dim3 size = blockDim;
  block = BlockState{};
  block.threads = block.live = static_cast<int>(size.x * size.y * size.z);
  block.warps.resize(static_cast<std::size_t>((block.threads + kWarp - 1) / kWarp));
  std::memset(shared_memory, 0xCD, sizeof shared_memory);
  while (static_cast<int>(fibres.size()) < block.threads) fibres.push_back(std::make_unique<Fibre>());
  std::vector<int> turn(static_cast<std::size_t>(block.threads));
  for (int t = 0; t < block.threads; ++t) {
    const unsigned u = static_cast<unsigned>(t);
    prepare(*fibres[u], {u % size.x, u / size.x % size.y, u / (size.x * size.y)});
    turn[u] = t;
  }
  while (block.live > 0) {
    const std::uint64_t before = block.progress;
    std::shuffle(turn.begin(), turn.end(), order);
    for (const int t : turn) {
      Fibre& fibre = *fibres[static_cast<std::size_t>(t)];
      if (fibre.done) continue;
      running = t;
      threadIdx = fibre.index;
      swapcontext(&scheduler, &fibre.context);
    }
    if (block.progress == before) {
      std::fprintf(stderr, "emulated device: %d threads of a block wait for others that never come\n",
                   block.live);
      failed = true;
      return;
    }
  }
}

}  // namespace

void* dynamic_shared() { return shared_memory; }

int lane() { return running % kWarp; }

void block_barrier() {
  const std::uint64_t round = block.round;
  ++block.arrived;
  ++block.progress;
  release_block_if_all_are_there();
  while (block.round == round) give_way();
}

std::uint64_t exchange(unsigned mask, std::uint64_t value, int from) {
  Meeting& meeting = block.warps[static_cast<std::size_t>(running / kWarp)];
  meeting.values[lane()] = value;
  meet(mask);
  const std::uint64_t given = from >= 0 && from < kWarp ? meeting.values[from] : value;
  meet(mask);  // nobody overwrites a value that is still to be read
  return given;
}

unsigned ballot(unsigned mask, bool predicate) {
  Meeting& meeting = block.warps[static_cast<std::size_t>(running / kWarp)];
  const unsigned bit = 1u << lane();
  meeting.votes = predicate ? meeting.votes | bit : meeting.votes & ~bit;
  meet(mask);
  const unsigned votes = meeting.votes & mask;
  meet(mask);
  return votes;
}

bool take_failure() {
  const bool was = failed;
  failed = false;
  return was;
}

cudaError_t check_launch(dim3 grid, dim3 size, std::size_t shared_bytes, cudaStream_t stream) {
  if (!runs_on_current_device(stream)) return cudaErrorInvalidValue;
  const auto threads = static_cast<std::uint64_t>(size.x) * size.y * size.z;
  const bool fits = threads >= 1 && threads <= 1024 && size.z <= 64 && grid.x >= 1 && grid.y >= 1 &&
                    grid.z >= 1 && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535 &&
                    shared_bytes <= kMaxSharedBytes;
  return fits ? cudaSuccess : cudaErrorInvalidConfiguration;
}

void launch(dim3 grid, dim3 size, std::size_t, cudaStream_t stream, std::function<void()> kernel) {
  enqueue(stream, [=] {
    body = &kernel;
    gridDim = grid;
    blockDim = size;
    for (unsigned z = 0; z < grid.z; ++z) {
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) run_block({x, y, z});
      }
    }
  });
}

}  // namespace emulator
