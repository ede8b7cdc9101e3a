// Arguments of the noise that both devices share: a call of each public function, but for its indices.
#pragma once

#include <pybind11/pybind11.h>

#include "ops/noise.h"

namespace cgnrt {

NoiseCall normal_call(const pybind11::object& seed, const pybind11::object& slot,
                      const pybind11::object& size);
NoiseCall truncated_normal_call(const pybind11::object& seed, const pybind11::object& slot,
                                const pybind11::object& size);
NoiseCall integers_call(const pybind11::object& seed, const pybind11::object& slot,
                        const pybind11::object& bound, const pybind11::object& size);
NoiseCall philox_call(const pybind11::object& seed, const pybind11::object& slot,
                      const pybind11::object& blocks);

}  // namespace cgnrt
