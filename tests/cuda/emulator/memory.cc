// Memory of the emulated device and its pools. See README.md.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "scheduler.h"
#include "state.h"

using namespace emulator;

namespace {

const std::pair<const std::uintptr_t, Block>* block_of(const void* memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  auto after = blocks.upper_bound(address);
  if (after == blocks.begin()) return nullptr;
  --after;
  return address < after->first + after->second.bytes ? &*after : nullptr;
}

bool is_pageable(const void* memory) { return block_of(memory) == nullptr; }

cudaError_t allocate(void** memory, std::size_t bytes, cudaMemoryType type, int device,
                     EmulatedPool* pool = nullptr) {
  const std::size_t rounded = (bytes + 511) / 512 * 512;
  if (type == cudaMemoryTypeDevice && used_bytes[device] + rounded > limit_bytes) {
    return cudaErrorMemoryAllocation;
  }
  *memory = std::aligned_alloc(512, rounded > 0 ? rounded : 512);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*memory, kUnwritten, rounded);
  blocks[reinterpret_cast<std::uintptr_t>(*memory)] = {rounded, type, device, pool};
  if (type == cudaMemoryTypeDevice) used_bytes[device] += rounded;
  return cudaSuccess;
}

// Freed memory stays readable, as its pattern, until this much has been freed after it.
constexpr std::size_t kQuarantineBytes = std::size_t{64} << 20;
std::deque<std::pair<void*, std::size_t>> quarantine;
std::size_t quarantined = 0;

}  // namespace

namespace emulator {

void bury(void* memory, std::size_t bytes) {
  std::memset(memory, kUnwritten, bytes);
  quarantine.emplace_back(memory, bytes);
  quarantined += bytes;
  while (quarantined > kQuarantineBytes) {
    std::free(quarantine.front().first);
    quarantined -= quarantine.front().second;
    quarantine.pop_front();
  }
}

const Block* forget(void* memory) {
  static Block block;
  const auto found = blocks.find(reinterpret_cast<std::uintptr_t>(memory));
  if (found == blocks.end()) return nullptr;
  block = found->second;
  blocks.erase(found);
  if (block.type == cudaMemoryTypeDevice) used_bytes[block.device] -= block.bytes;
  if (block.pool != nullptr) block.pool->used -= block.bytes;
  return &block;
}

void note_synchronisation() {
  ++synchronisations;
  for (EmulatedPool* pool : pools) {
    const std::size_t kept = std::max<std::uint64_t>(pool->used, pool->threshold);
    pool->reserved = std::min(pool->reserved, kept);
  }
}

}  // namespace emulator

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  const Lock lock(mutex);
  if (breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  *pool = new EmulatedPool{properties->location.id};
  pools.insert(*pool);
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  const Lock lock(mutex);
  pools.erase(pool);
  if (pool->used == 0) delete pool;  // else its blocks still name it
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void* value) {
  const Lock lock(mutex);
  pool->threshold = *static_cast<std::uint64_t*>(value);
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t bytes_to_keep) {
  const Lock lock(mutex);
  if (breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  pool->reserved = std::min(pool->reserved, std::max(pool->used, bytes_to_keep));
  return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  const Lock lock(mutex);
  const auto& capture = resolve(stream)->capture;
  const cudaError_t status =
      allocate(memory, bytes, cudaMemoryTypeDevice, pool->device, capture ? nullptr : pool);
  if (status != cudaSuccess) return status;
  if (capture) {
    capture->memory.insert(*memory);
    return cudaSuccess;
  }
  pool->used += block_of(*memory)->second.bytes;
  if (pool->used > pool->reserved) {
    pool->reserved = pool->used;
    ++mappings;
  }
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t stream) {
  const Lock lock(mutex);
  return allocate(memory, bytes, cudaMemoryTypeDevice, resolve(stream)->device);
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  const Lock lock(mutex);
  EmulatedStream* s = resolve(stream);
  if (s->capture) {  // a graph gives back what it allocated and nothing else; its memory stays in place
    if (s->capture->memory.count(memory) == 0) return invalidate(s, cudaErrorInvalidValue);
    s->capture->freed.insert(memory);
    const std::size_t bytes = block_of(memory)->second.bytes;
    s->capture->nodes.push_back([memory, bytes] { std::memset(memory, kUnwritten, bytes); });
    return cudaSuccess;
  }
  const Block* block = forget(memory);  // the next allocation in stream order may have it
  if (block == nullptr) return cudaErrorInvalidValue;
  s->work.push_back({[memory, bytes = block->bytes] { bury(memory, bytes); }, nullptr, 0});
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  const Lock lock(mutex);
  if (is_pageable(from)) {
    const auto* first = static_cast<const unsigned char*>(from);
    const auto staged = std::make_shared<std::vector<unsigned char>>(first, first + bytes);
    emulator::enqueue(stream, [=] { std::memcpy(to, staged->data(), bytes); });
  } else {
    emulator::enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  }
  if (is_pageable(to)) return cudaStreamSynchronize(stream);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  emulator::enqueue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  const Lock lock(mutex);
  if (breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  return allocate(memory, bytes, cudaMemoryTypeHost, 0);
}
cudaError_t cudaFreeHost(void* memory) {
  const Lock lock(mutex);
  if (breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  const Block* block = forget(memory);
  if (block == nullptr) return cudaErrorInvalidValue;
  bury(memory, block->bytes);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  const Lock lock(mutex);
  const auto* found = block_of(memory);
  attributes->type = found == nullptr ? cudaMemoryTypeUnregistered : found->second.type;
  attributes->device = found == nullptr ? -2 : found->second.device;
  return cudaSuccess;
}
