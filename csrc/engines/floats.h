// Memory for vector loops.
#pragma once

#include <cstddef>
#include <memory>

namespace cgnrt {

// Floats of the shortest vector that the engines' loops are written in, on every instruction set.
constexpr int kRun = 8;

// Floats aligned to a cache line.
class Floats {
 public:
  Floats() = default;
  explicit Floats(std::size_t count) : storage_(new Line[(count + 15) / 16]()) {}
  float* data() { return reinterpret_cast<float*>(storage_.get()); }
  const float* data() const { return reinterpret_cast<const float*>(storage_.get()); }

 private:
  struct alignas(64) Line {
    float values[16];
  };
  std::unique_ptr<Line[]> storage_;
};

}  // namespace cgnrt
