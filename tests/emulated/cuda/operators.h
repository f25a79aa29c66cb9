// How an operator is computed on the memory of a CUDA tensor; see operators.cpp.
#pragma once
#include <ATen/ATen.h>
#include <chrono>

// A CPU tensor on the same memory.
at::Tensor as_cpu(const at::Tensor &tensor);
// A tensor of the CUDA caching allocator with the values of a CPU tensor.
at::Tensor to_cuda(const at::Tensor &result, c10::Device device);

// Around a computation: waits until the current stream has brought all data; afterwards keeps the stream busy for
// EMULATED_LAG times as long as it took, so that the CPU runs ahead as it does of a GPU.
class Computation {
 public:
  Computation();
  ~Computation();

 private:
  std::chrono::steady_clock::time_point begun;
};

namespace torch {
class Library;
}
void add_attention(torch::Library &library);
