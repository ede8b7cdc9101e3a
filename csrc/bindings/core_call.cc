// A call of an op on the CPU.
#include "bindings/arguments.h"
#include "bindings/borrow.h"
#include "bindings/lend.h"
#include "bindings/op_call.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

class CpuCall : public OpCall {
 public:
  CpuCall(const char* operation, const std::string& implementation, const py::object& threads)
      : operation_(operation) {
    if (threads) {
      const std::string subject = std::string(operation) + " threads";
      target_.threads = static_cast<int>(integer_argument(threads, subject, 0, 1024));
    }
    target_.implementation = implementation;
  }

  Tensor input(const py::handle& object, const std::string& subject) override {
    borrowed_.push_back(std::make_unique<Borrowed>(object, subject));
    return borrowed_.back()->tensor();
  }

  py::object run(const py::object& out, DType dtype, const std::vector<std::int64_t>& shape,
                 const std::function<void(const Tensor&)>& body) override {
    const py::object result = out.is_none() ? new_array(dtype, shape) : out;
    const Borrowed to(result, std::string(operation_) + " out");
    {
      const py::gil_scoped_release unlocked;
      body(to.tensor());
    }
    return result;
  }

 private:
  const char* operation_;
  std::vector<std::unique_ptr<Borrowed>> borrowed_;
};

}  // namespace

std::unique_ptr<OpCall> begin_call(const char* operation, const py::object&, const char*,
                                   const py::object& stream, const std::string& implementation,
                                   const py::object& threads) {
  if (!stream.is_none()) {
    refuse(std::string(operation) + " stream", "stream", std::string(py::repr(stream)),
           "None for tensors on the CPU");
  }
  return std::make_unique<CpuCall>(operation, implementation, threads);
}

}  // namespace cgnrt
