// Prepares a network: checks that sizes fit and that every picture is made before it is read, gives each its
// memory, and packs the weights.
#include <algorithm>
#include <string>

#include "common/tensor.h"
#include "common/thread_pool.h"
#include "engines/deep/kernel.h"
#include "engines/deep/network.h"

namespace cgnrt {
namespace deep {
namespace {

// Bounds that keep every product of sizes far from overflow.
constexpr int kMostChannels = 1 << 16;
constexpr int kMostSide = 1 << 13;
constexpr int kMostBuffers = 1 << 14;
// Result channels up to which vectors go along the input channels.
constexpr int kThinChannels = 4;
// Input channels up to which whole lines of them would be mostly empty.
constexpr int kGatheredChannels = 4;

std::string text(const Picture& p) {
  return std::to_string(p.channels) + " x " + std::to_string(p.height) + " x " + std::to_string(p.width);
}

void require(bool good, const std::string& subject, const char* field, const std::string& got,
             const std::string& rule) {
  if (!good) refuse(subject, field, got, rule);
}

int buffers_of(PictureNetwork& net) {
  int count = 0;
  for (std::size_t k = 0; k < net.pictures.size(); ++k) {
    const Picture& p = net.pictures[k];
    const std::string subject = "deep picture " + std::to_string(k);
    require(p.channels >= 1 && p.height >= 1 && p.width >= 1 && p.channels <= kMostChannels &&
                p.height <= kMostSide && p.width <= kMostSide,
            subject, "size", text(p), "channels and sides from 1 to 65536 and 8192");
    require(p.buffer >= 0 && p.buffer < kMostBuffers, subject, "buffer", std::to_string(p.buffer),
            "0 to " + std::to_string(kMostBuffers - 1));
    require(p.first >= 0 && p.first <= kMostChannels && p.first % kLine == 0, subject, "first channel",
            std::to_string(p.first), "a multiple of 8");
    count = std::max(count, p.buffer + 1);
    net.most_channels = std::max(net.most_channels, whole_lines(p.channels));
  }
  return count;
}

// Gives every picture its stride, and says how many floats an image takes in each buffer.
std::vector<std::int64_t> place(PictureNetwork& net, int buffers) {
  std::vector<int> strides(buffers, 0);
  std::vector<const Picture*> first(buffers, nullptr);
  for (std::size_t k = 0; k < net.pictures.size(); ++k) {
    Picture& p = net.pictures[k];
    strides[p.buffer] = std::max(strides[p.buffer], p.first + whole_lines(p.channels));
    const Picture*& model = first[p.buffer];
    if (model == nullptr) model = &p;
    require(model->height == p.height && model->width == p.width, "deep picture " + std::to_string(k), "size",
            text(p), "that of the others in its buffer, " + text(*model));
  }
  std::vector<std::int64_t> floats(buffers, 0);
  for (Picture& p : net.pictures) {
    p.stride = strides[p.buffer];
    floats[p.buffer] = p.pixels() * p.stride;
  }
  return floats;
}

void check_act(const std::string& subject, const Affine& affine, const PictureNetwork& net, int channels) {
  for (const int vector : {affine.scale, affine.shift}) {
    if (vector == -1) continue;
    require(vector >= 0 && vector < static_cast<int>(net.vector_widths.size()), subject, "vector",
            std::to_string(vector), "one of " + std::to_string(net.vector_widths.size()));
    require(net.vector_widths[vector] == channels, subject, "vector width",
            std::to_string(net.vector_widths[vector]), std::to_string(channels));
  }
}

bool same_size(const Picture& a, const Picture& b) { return a.height == b.height && a.width == b.width; }

void check_sizes(const std::string& subject, const PictureNetwork& net, const Step& step) {
  const Picture& out = net.pictures[step.out];
  const auto in = [&](int k) -> const Picture& { return net.pictures[step.in[k]]; };
  const std::size_t wanted = step.kind == StepKind::kAttention                                ? 3
                             : step.kind == StepKind::kStart || step.kind == StepKind::kImage ? 0
                                                                                              : 1;
  require(step.in.size() == wanted, subject, "inputs", std::to_string(step.in.size()),
          std::to_string(wanted));
  require(step.kind == StepKind::kStart || step.vector == -1, subject, "vector", std::to_string(step.vector),
          "none: only a start has one");
  bool fits = true;
  switch (step.kind) {
    case StepKind::kStart:
      require(step.vector >= 0 && step.vector < static_cast<int>(net.vector_widths.size()), subject, "vector",
              std::to_string(step.vector), "one of " + std::to_string(net.vector_widths.size()));
      fits = net.vector_widths[step.vector] == out.channels * out.pixels();
      break;
    case StepKind::kImage:
      fits = step.out == net.image;
      break;
    case StepKind::kConv:
      require((step.kernel == 1 || step.kernel == 3) && step.dilation >= 1 && step.dilation <= kMostSide,
              subject, "kernel", std::to_string(step.kernel), "1 or 3, dilated by 1 or more");
      fits = same_size(in(0), out);
      break;
    case StepKind::kUpConv:
      fits = 2 * in(0).height == out.height && 2 * in(0).width == out.width;
      break;
    case StepKind::kMaxPool:
      fits = (in(0).height + 1) / 2 == out.height && (in(0).width + 1) / 2 == out.width &&
             in(0).channels == out.channels;
      break;
    case StepKind::kResize:
      fits = in(0).channels == out.channels;
      break;
    case StepKind::kAttention:
      fits = in(0).channels == in(1).channels && same_size(in(1), in(2)) && same_size(in(0), out) &&
             in(2).channels == out.channels && in(1).pixels() <= kMostChannels;
      break;
    case StepKind::kPointwise:
      fits = same_size(in(0), out) && in(0).channels == out.channels;
      break;
  }
  require(fits, subject, "result", text(out), "the size that its input gives");
  if (!step.before.idle()) {
    const bool can = step.kind == StepKind::kPointwise || (step.kind == StepKind::kConv && step.kernel == 1);
    require(can, subject, "map of the input", "set",
            "none: only 1x1 convolutions and pointwise steps have one");
    check_act(subject, step.before, net, in(0).channels);
  }
  check_act(subject, step.after, net, out.channels);
  check_act(subject, step.last, net, out.channels);
  if (step.residual >= 0) {
    const Picture& residual = net.pictures[step.residual];
    const int scale = step.residual_up ? 2 : 1;
    require(residual.channels >= out.channels && residual.height * scale == out.height &&
                residual.width * scale == out.width,
            subject, "residual", text(residual), "that of the result, " + text(out));
  }
}

void check_weights(const std::string& subject, const PictureNetwork& net, const Step& step) {
  const bool convolves = step.kind == StepKind::kConv || step.kind == StepKind::kUpConv;
  const Picture& out = net.pictures[step.out];
  const int taps = step.kind == StepKind::kUpConv ? 16 : step.kernel * step.kernel;
  const std::int64_t wanted =
      convolves ? static_cast<std::int64_t>(net.pictures[step.in[0]].channels) * out.channels * taps : 0;
  require(step.weight_count == wanted, subject, "weight", std::to_string(step.weight_count) + " numbers",
          std::to_string(wanted));
  require(step.bias.empty() || (convolves && static_cast<int>(step.bias.size()) == out.channels), subject,
          "bias", std::to_string(step.bias.size()) + " numbers",
          std::to_string(convolves ? out.channels : 0) + " or none");
}

// Which steps write and read every buffer first and last.
struct Life {
  int from = -1;
  int to = -1;
};

void check_indices(const std::string& subject, const PictureNetwork& net, const Step& step) {
  const int count = static_cast<int>(net.pictures.size());
  std::vector<int> used = step.in;
  used.push_back(step.out);
  if (step.residual != -1) used.push_back(step.residual);
  for (const int k : used) {
    require(k >= 0 && k < count, subject, "picture", std::to_string(k), "one of " + std::to_string(count));
  }
}

// Every channel of a buffer is written once, and before it is read.
std::vector<Life> check_order(const PictureNetwork& net, int buffers) {
  std::vector<Life> lives(buffers);
  std::vector<std::vector<bool>> made(buffers);
  for (const Picture& p : net.pictures) made[p.buffer].resize(p.stride / kLine, false);
  const auto read = [&](const std::string& subject, int picture, int step) {
    const Picture& p = net.pictures[picture];
    for (int line = p.first / kLine; line < (p.first + whole_lines(p.channels)) / kLine; ++line) {
      require(made[p.buffer][line], subject, "picture", std::to_string(picture), "one that was made before");
    }
    lives[p.buffer].to = step;
  };
  for (std::size_t k = 0; k < net.steps.size(); ++k) {
    const Step& step = net.steps[k];
    const std::string subject = "deep step " + std::to_string(k);
    for (const int picture : step.in) read(subject, picture, static_cast<int>(k));
    if (step.residual >= 0) read(subject, step.residual, static_cast<int>(k));
    const Picture& out = net.pictures[step.out];
    for (int line = out.first / kLine; line < (out.first + whole_lines(out.channels)) / kLine; ++line) {
      require(!made[out.buffer][line], subject, "picture", std::to_string(step.out), "one that is made once");
      made[out.buffer][line] = true;
    }
    Life& life = lives[out.buffer];
    if (life.from < 0) life.from = static_cast<int>(k);
    life.to = std::max(life.to, static_cast<int>(k));
  }
  for (const int picture : net.outputs) {
    require(picture >= 0 && picture < static_cast<int>(net.pictures.size()), "deep network", "output",
            std::to_string(picture), "one of its pictures");
    read("deep network", picture, static_cast<int>(net.steps.size()));
  }
  return lives;
}

// Buffers that are not in use at the same time share memory: each takes the smallest free slot that holds it,
// or else the largest free one, enlarged.
void share_memory(PictureNetwork& net, const std::vector<Life>& lives,
                  const std::vector<std::int64_t>& floats) {
  std::vector<int> order;
  for (std::size_t b = 0; b < lives.size(); ++b) {
    if (lives[b].from >= 0) order.push_back(static_cast<int>(b));
  }
  std::sort(order.begin(), order.end(), [&](int a, int b) { return lives[a].from < lives[b].from; });
  net.slots.assign(lives.size(), -1);
  net.slot_floats.clear();
  std::vector<int> busy_until;
  for (const int b : order) {
    int best = -1;
    for (std::size_t s = 0; s < net.slot_floats.size(); ++s) {
      if (busy_until[s] >= lives[b].from) continue;
      if (best < 0) best = static_cast<int>(s);
      const bool fits = net.slot_floats[s] >= floats[b], best_fits = net.slot_floats[best] >= floats[b];
      const bool smaller = net.slot_floats[s] < net.slot_floats[best];
      if (fits ? (!best_fits || smaller) : (!best_fits && !smaller)) best = static_cast<int>(s);
    }
    if (best < 0) {
      best = static_cast<int>(net.slot_floats.size());
      net.slot_floats.push_back(0);
      busy_until.push_back(0);
    }
    net.slot_floats[best] = std::max(net.slot_floats[best], floats[b]);
    busy_until[best] = lives[b].to;
    net.slots[b] = best;
  }
}

Method choose_method(const Step& step, const Picture& in, const Picture& out) {
  if (step.kind == StepKind::kUpConv) return Method::kUp;
  if (out.channels <= kThinChannels && step.before.idle()) return Method::kThin;
  if (step.kernel == 3 && in.channels <= kGatheredChannels) return Method::kGathered;
  if (step.kernel != 3 || step.dilation != 1 || in.channels < 2 * kLine) return Method::kDirect;
  // The smaller the picture, the more its time is that of reading the weights, which the transforms enlarge
  // four times and 1.8 times.
  const int side = std::min(in.height, in.width);
  return side >= 32 ? Method::kTile4 : side >= 16 ? Method::kTile2 : Method::kDirect;
}

// Multiply-adds for an output and a pair of channels.
double products_per_pair(const Step& step) {
  switch (step.method) {
    case Method::kTile2:
      return 4;
    case Method::kTile4:
    case Method::kUp:
      return 2.25;
    default:
      return step.kernel * step.kernel;
  }
}

double products_of(const PictureNetwork& net, const Step& step) {
  const Picture& out = net.pictures[step.out];
  if (step.kind == StepKind::kAttention) {
    const Picture &query = net.pictures[step.in[0]], &key = net.pictures[step.in[1]];
    return 1.0 * query.pixels() * key.pixels() * (query.channels + out.channels);
  }
  if (step.kind != StepKind::kConv && step.kind != StepKind::kUpConv) return 0;
  return products_per_pair(step) * out.pixels() * net.pictures[step.in[0]].channels * out.channels;
}

}  // namespace

const char* name_of_method(const Step& step) {
  static const char* const kKinds[] = {"start",    "image",  "",          "",
                                       "max pool", "resize", "attention", "pointwise"};
  static const char* const kMethods[] = {"3x3 direct", "3x3 gathered",   "3x3 F(2x2)",
                                         "3x3 F(4x4)", "3x3 up-sampled", "3x3 thin"};
  if (step.kind != StepKind::kConv && step.kind != StepKind::kUpConv)
    return kKinds[static_cast<int>(step.kind)];
  return step.kind == StepKind::kConv && step.kernel == 1 ? "1x1" : kMethods[static_cast<int>(step.method)];
}

void prepare(PictureNetwork& net, const char* isa) {
  net.isa = pick_isa(isa);
  net.most_channels = 0;
  const int buffers = buffers_of(net);
  const std::vector<std::int64_t> floats = place(net, buffers);
  for (std::size_t k = 0; k < net.steps.size(); ++k) {
    const std::string subject = "deep step " + std::to_string(k);
    check_indices(subject, net, net.steps[k]);
    check_sizes(subject, net, net.steps[k]);
    check_weights(subject, net, net.steps[k]);
  }
  const bool has_image = std::any_of(net.steps.begin(), net.steps.end(), [](const Step& step) {
    return step.kind == StepKind::kImage;  // whose result is net.image: checked above
  });
  require(net.image == -1 || has_image, "deep network", "image", std::to_string(net.image),
          "the picture of an image step");
  share_memory(net, check_order(net, buffers), floats);
  for (Step& step : net.steps) {
    step.products = products_of(net, step);
    if (step.kind != StepKind::kConv && step.kind != StepKind::kUpConv) continue;
    const Picture& in = net.pictures[step.in[0]];
    const Picture& out = net.pictures[step.out];
    step.method = choose_method(step, in, out);
    step.products = products_of(net, step);
    const Kernel& kernel = CGNRT_PICK_VARIANT(kDeep, net.isa);
    const Panels panels = kernel.panels(step, in, out);
    step.packed = Floats(panels.count * panels.floats);
    parallel_for(panels.count, available_cpus(), [&](std::int64_t panel) {
      kernel.pack(step, in, out, static_cast<int>(panel), step.packed.data() + panel * panels.floats);
    });
    step.weight = nullptr;
  }
}

}  // namespace deep
}  // namespace cgnrt
