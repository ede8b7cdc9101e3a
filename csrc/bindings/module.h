// How the files of bindings make up a module.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

namespace cgnrt {

// Adds what a file binds to the module that the file is compiled into. Make one at namespace scope:
//   const Binding kCompose(bind_compose);
class Binding {
 public:
  using Bind = void (*)(pybind11::module_& module);
  explicit Binding(Bind bind) { all().push_back(bind); }
  static void add_all(pybind11::module_& module) {
    for (const Bind bind : all()) bind(module);
  }

 private:
  static std::vector<Bind>& all() {
    static std::vector<Bind> bindings;
    return bindings;
  }
};

// For cgnrt._cuda: types that the signatures of others name, so they are bound first, in this order.
void bind_cuda_streams(pybind11::module_& module);
void bind_cuda_arrays(pybind11::module_& module);

}  // namespace cgnrt
