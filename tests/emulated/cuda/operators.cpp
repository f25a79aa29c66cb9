// Computes what CUDA kernels would: every operator of torch that has a CUDA kernel is replaced by one that calls the CPU's
// on the same memory, and puts what is new into tensors of the CUDA caching allocator. What allocates, makes views, copies
// contiguous bytes or reads one number stays torch's own CUDA code.
#include "operators.h"
#include "emulated.h"
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/ops/copy_native.h>
#include <c10/cuda/CUDAGuard.h>
#include <cstdlib>
#include <set>
#include <torch/library.h>

using at::Tensor;
using c10::IValue;
using Stack = torch::jit::Stack;

Tensor as_cpu(const Tensor &tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  auto options = at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU);
  return at::from_blob(tensor.mutable_data_ptr(), tensor.sizes(), tensor.strides(), options);
}

Tensor to_cuda(const Tensor &result, c10::Device device) {
  if (!result.defined()) return result;
  auto options = result.options().device(device).requires_grad(false);
  Tensor copy = result.is_non_overlapping_and_dense() ? at::empty_strided(result.sizes(), result.strides(), options)
                                                      : at::empty(result.sizes(), options);
  if (result.numel()) as_cpu(copy).copy_(result);
  return copy;
}

static double lag() {
  static const char *words = getenv("EMULATED_LAG");
  static double times = words ? atof(words) : 0;
  return times;
}

Computation::Computation() {
  emulated_wait_for_data(c10::cuda::getCurrentCUDAStream());
  begun = std::chrono::steady_clock::now();
}

Computation::~Computation() {
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  emulated_occupy(c10::cuda::getCurrentCUDAStream(), lag() * took.count());
}

namespace {
// The arguments of one call, as they came, and what became of them.
struct Call {
  const c10::FunctionSchema &schema;
  std::vector<IValue> given;
  std::vector<Tensor> inputs;                     // on the device
  std::vector<std::pair<Tensor, Tensor>> resized;  // empty results that the operator gives a size; on the CPU
  c10::optional<c10::Device> device;

  Call(const c10::FunctionSchema &schema, const Stack &stack)
      : schema(schema), given(stack.end() - schema.arguments().size(), stack.end()) {
    for (const IValue &value : given) look_at(value);
    if (!device) device = c10::Device(c10::kCUDA, c10::cuda::current_device());
  }

  void look_at(const Tensor &tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return;
    if (!device) device = tensor.device();
    TORCH_CHECK(*device == tensor.device(), schema.name(), ": tensors on ", *device, " and ", tensor.device());
    inputs.push_back(tensor);
  }

  void look_at(const IValue &value) {
    if (value.isTensor()) look_at(value.toTensor());
    else if (value.isTensorList()) for (const Tensor &tensor : value.toTensorVector()) look_at(tensor);
    else if (value.isOptionalTensorList()) {
      for (const auto &tensor : value.toOptionalTensorVector()) if (tensor) look_at(*tensor);
    } else if (value.isDevice() && !device && value.toDevice().is_cuda()) device = value.toDevice();
  }

  IValue for_cpu(const IValue &value, bool is_result) {
    if (value.isTensor()) {
      Tensor tensor = value.toTensor();
      bool needs_size = is_result && tensor.defined() && tensor.is_cuda() && !tensor.numel();
      if (!needs_size) return as_cpu(tensor);
      resized.push_back({tensor, at::empty({0}, tensor.options().device(at::kCPU))});
      return resized.back().second;
    }
    if (value.isTensorList()) {
      std::vector<Tensor> list;
      for (const Tensor &tensor : value.toTensorVector()) list.push_back(as_cpu(tensor));
      return IValue(c10::List<Tensor>(list));
    }
    if (value.isOptionalTensorList()) {
      c10::List<c10::optional<Tensor>> list;
      for (const auto &tensor : value.toOptionalTensorVector())
        list.push_back(tensor ? c10::optional<Tensor>(as_cpu(*tensor)) : c10::nullopt);
      return IValue(list);
    }
    if (value.isDevice()) return c10::Device(at::kCPU);
    if (value.isGenerator()) return IValue();  // the CPU's own
    return value;
  }

  void finish_resized() {
    for (auto &[tensor, result] : resized) {
      tensor.resize_(result.sizes());
      if (result.numel()) as_cpu(tensor).copy_(result);
    }
  }

  // A result of the CPU's operator as one of the device: a view of an input, or a new tensor.
  Tensor for_cuda(const Tensor &result) const {
    if (!result.defined() || !result.is_cpu()) return result;
    char *memory = result.numel() ? (char *)result.data_ptr() : nullptr;
    for (const Tensor &input : inputs) {
      if (!memory || !input.numel()) continue;
      char *begin = (char *)input.storage().data(), *end = begin + input.storage().nbytes();
      if (memory >= begin && memory < end)
        return at::as_strided(input, result.sizes(), result.strides(), (memory - begin) / result.element_size());
    }
    return to_cuda(result, *device);
  }

  IValue for_cuda(const IValue &value) const {
    if (value.isTensor()) return for_cuda(value.toTensor());
    if (!value.isTensorList()) return value;
    std::vector<Tensor> list;
    for (const Tensor &tensor : value.toTensorVector()) list.push_back(for_cuda(tensor));
    return IValue(c10::List<Tensor>(list));
  }

  // The argument that a result is, where the operator writes to it; null where it is none.
  const IValue *written(const c10::Argument &result) const {
    const auto *alias = result.alias_info();
    if (!alias || !alias->isWrite()) return nullptr;
    for (size_t i = 0; i < given.size(); i++) {
      const auto *own = schema.arguments()[i].alias_info();
      if (own && own->isWrite() && own->beforeSets() == alias->beforeSets()) return &given[i];
    }
    return nullptr;
  }
};

// The first matrix product on a stream makes torch allocate cuBLAS's workspace, which counts as allocated memory.
void allocate_workspace(const std::string &name) {
  static const std::set<std::string> products = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"};
  if (products.count(name)) at::cuda::getCurrentCUDABlasHandle();
}

void compute(const c10::OperatorHandle &op, c10::DispatchKeySet, Stack *stack) {
  Call call(op.schema(), *stack);
  c10::cuda::CUDAGuard guard(*call.device);
  allocate_workspace(call.schema.name());
  {
    Computation computation;
    at::AutoDispatchBelowAutograd below;
    size_t first = stack->size() - call.given.size();
    for (size_t i = 0; i < call.given.size(); i++)
      (*stack)[first + i] = call.for_cpu(call.given[i], call.schema.arguments()[i].is_out());
    op.callBoxed(stack);
    call.finish_resized();
  }
  const auto &returns = call.schema.returns();
  size_t first = stack->size() - returns.size();
  for (size_t i = 0; i < returns.size(); i++) {
    IValue &result = (*stack)[first + i];
    const IValue *argument = call.written(returns[i]);
    result = argument ? *argument : call.for_cuda(result);
  }
}

// Torch's own where bytes are moved as they are; there it is cudaMemcpyAsync.
Tensor &copy(Tensor &self, const Tensor &source, bool non_blocking) {
  bool is_plain = self.scalar_type() == source.scalar_type() && self.sizes() == source.sizes() &&
                  self.is_contiguous() && source.is_contiguous();
  if (is_plain || self.is_meta() || source.is_meta()) return at::native::copy_(self, source, non_blocking);
  c10::cuda::CUDAGuard guard(self.is_cuda() ? self.device() : source.device());
  Computation computation;
  at::AutoDispatchBelowAutograd below;
  as_cpu(self).copy_(as_cpu(source));
  return self;
}

bool stays_torchs_own(const std::string &name) {
  static const std::set<std::string> names = {
      // allocation
      "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "resize_", "set_", "is_set_to",
      "_efficientzerotensor",
      // views
      "as_strided", "view", "_reshape_alias", "unfold", "alias", "detach", "narrow", "select", "slice", "view_as_real",
      "view_as_complex", "lift", "lift_fresh",
      // streams, pinned memory, one number
      "record_stream", "is_pinned", "_pin_memory", "_local_scalar_dense",
      // copies, which come to copy() below
      "copy_", "_copy_from", "clone",
      // attention, which attention.cpp adds
      "_fused_sdp_choice", "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_backward",
      "_scaled_dot_product_efficient_attention", "_scaled_dot_product_efficient_attention_backward"};
  return names.count(name);
}

struct Installed {
  torch::Library library{torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__};

  Installed() {
    struct Silent : c10::WarningHandler {  // torch warns of every kernel that is replaced
      void process(const c10::Warning &) override {}
    } silent;
    c10::WarningUtils::WarningHandlerGuard guard(&silent);
    auto &dispatcher = c10::Dispatcher::singleton();
    for (const auto &name : dispatcher.getAllOpNames()) {
      if (name.getNamespace() != c10::optional<c10::string_view>("aten")) continue;
      std::string plain = name.name.substr(strlen("aten::"));
      auto op = dispatcher.findSchema(name);
      if (stays_torchs_own(plain) || !op || !op->hasKernelForDispatchKey(c10::DispatchKey::CUDA)) continue;
      std::string full = plain + (name.overload_name.empty() ? "" : "." + name.overload_name);
      library.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&compute>());
    }
    library.impl("copy_", copy);
    add_attention(library);
  }
};
Installed *installed = new Installed;  // never destroyed: operators may run until the process ends
}  // namespace
