// Fused attention: the CPU's kernel computes what torch's two CUDA kernels do, in tensors of the shapes that these make,
// because they count as memory.
#include "operators.h"
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

using at::Tensor;
using c10::optional;
using c10::SymInt;
using std::tuple;

namespace {
struct Attention {
  c10::cuda::CUDAGuard device;
  Computation computation;
  at::AutoDispatchBelowAutograd below;
  explicit Attention(const Tensor &query) : device(query.device()) {}
};

// [batch, heads, tokens, size] on memory of [batch, tokens, heads, size], as both kernels lay their output.
Tensor laid_out(const Tensor &query, const Tensor &result) {
  Tensor out = at::empty_like(query.transpose(1, 2), at::MemoryFormat::Contiguous).transpose(1, 2);
  as_cpu(out).copy_(result);
  return out;
}

tuple<Tensor, Tensor, Tensor> gradients(
    const Tensor &gradient, const Tensor &query, const Tensor &key, const Tensor &value, const Tensor &out,
    const Tensor &logsumexp, double dropout, bool causal, optional<double> scale) {
  auto [q, k, v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      as_cpu(gradient), as_cpu(query), as_cpu(key), as_cpu(value), as_cpu(out), as_cpu(logsumexp), dropout, causal,
      c10::nullopt, scale);
  return {to_cuda(q, query.device()), to_cuda(k, query.device()), to_cuda(v, query.device())};
}

tuple<Tensor, Tensor, Tensor, Tensor, SymInt, SymInt, Tensor, Tensor, Tensor> flash(
    const Tensor &query, const Tensor &key, const Tensor &value, double dropout, bool causal, bool,
    optional<double> scale) {
  Attention attention(query);
  auto [result, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
      as_cpu(query), as_cpu(key), as_cpu(value), dropout, causal, c10::nullopt, scale);
  auto state = query.options().dtype(at::kUInt64);
  return {laid_out(query, result), to_cuda(logsumexp, query.device()), Tensor(), Tensor(), query.sym_size(2),
          key.sym_size(2), at::empty({2}, state), at::empty({}, state), at::empty({0}, query.options())};
}

tuple<Tensor, Tensor, Tensor> flash_backward(
    const Tensor &gradient, const Tensor &query, const Tensor &key, const Tensor &value, const Tensor &out,
    const Tensor &logsumexp, const Tensor &, const Tensor &, SymInt, SymInt, double dropout, bool causal,
    const Tensor &, const Tensor &, optional<double> scale) {
  Attention attention(query);
  // The kernel adds up the query's gradient in fp32, in blocks of 128 tokens.
  int64_t padded = (query.size(2) + 127) / 128 * 128;
  auto accumulated = at::empty({query.size(0), query.size(1), padded, query.size(3)}, query.options().dtype(at::kFloat));
  return gradients(gradient, query, key, value, out, logsumexp, dropout, causal, scale);
}

tuple<Tensor, Tensor, Tensor, Tensor> efficient(
    const Tensor &query, const Tensor &key, const Tensor &value, const optional<Tensor> &bias, bool, double dropout,
    bool causal, optional<double> scale) {
  Attention attention(query);
  auto mask = bias ? optional<Tensor>(as_cpu(*bias)) : c10::nullopt;
  auto [result, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
      as_cpu(query), as_cpu(key), as_cpu(value), dropout, causal, mask, scale);
  auto state = at::TensorOptions().device(query.device()).dtype(at::kLong);
  return {laid_out(query, result), to_cuda(logsumexp, query.device()), at::empty({}, state), at::empty({}, state)};
}

tuple<Tensor, Tensor, Tensor, Tensor> efficient_backward(
    const Tensor &gradient, const Tensor &query, const Tensor &key, const Tensor &value, const Tensor &,
    const Tensor &out, const Tensor &logsumexp, const Tensor &, const Tensor &, double dropout, std::array<bool, 4>,
    bool causal, optional<double> scale) {
  Attention attention(query);
  auto [q, k, v] = gradients(gradient, query, key, value, out, logsumexp, dropout, causal, scale);
  return {q, k, v, Tensor()};
}
}  // namespace

void add_attention(torch::Library &library) {
  library.impl("_scaled_dot_product_flash_attention", flash);
  library.impl("_scaled_dot_product_flash_attention_backward", flash_backward);
  library.impl("_scaled_dot_product_efficient_attention", efficient);
  library.impl("_scaled_dot_product_efficient_attention_backward", efficient_backward);
}
