// What tests ask of the emulated device and set on it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

struct Counters {
  std::uint64_t synchronisations;  // of the host with a stream or an event
  std::size_t used_bytes[2];       // of each device
  std::uint64_t mappings;          // times that a pool had to get memory from the device
};

Counters counters();

// Memory of each device, how many there are (0..2), and the driver's version (13000 is what the runtime
// needs).
void configure(std::size_t memory_bytes, int devices, int driver);

}  // namespace emulator
