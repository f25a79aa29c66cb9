// Kernels are not run: operators.cpp computes what they would. Only torch.cuda._sleep's takes its time. Any other that is
// launched computes nothing here, so what it should have computed is wrong: the log says so.
#include "process.h"
#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string>

namespace {
const double CYCLES_PER_SECOND = 1.41e9;  // an A100's clock

std::mutex &names_mutex = *new std::mutex;
std::map<const void *, std::string> &names = *new std::map<const void *, std::string>;  // by the host's stub
std::set<std::string> &missed = *new std::set<std::string>;

std::string name_of(const void *function) {
  std::lock_guard<std::mutex> lock(names_mutex);
  auto found = names.find(function);
  return found == names.end() ? "a kernel without a name" : found->second;
}

void say_once(const std::string &name) {
  std::lock_guard<std::mutex> lock(names_mutex);
  if (missed.insert(name).second) emulated_misuse("a kernel that nothing computes: %s", name.substr(0, 300).c_str());
}

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
};
thread_local std::vector<Configuration> configurations;  // of <<<...>>> in this thread, which the launch takes off
}  // namespace

EXPORTED cudaError_t cudaLaunchKernel(const void *function, dim3, dim3, void **arguments, size_t, cudaStream_t handle) {
  BEGIN_ON_STREAM(handle);
  STREAM_OF_CURRENT_DEVICE;
  std::string name = name_of(function);
  if (name.find("spin_kernel") != std::string::npos)
    stream->occupy((double)*(int64_t *)arguments[0] / CYCLES_PER_SECOND);
  else
    say_once(name);
  return cudaSuccess;
}

EXPORTED cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
  *kernel = (cudaKernel_t)function;
  return cudaSuccess;
}
EXPORTED cudaError_t __cudaLaunchKernel(
    cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes, cudaStream_t stream) {
  return cudaLaunchKernel((const void *)kernel, grid, block, arguments, shared_bytes, stream);
}
EXPORTED cudaError_t cudaLaunchCooperativeKernel(
    const void *function, dim3 grid, dim3 block, void **arguments, size_t shared_bytes, cudaStream_t stream) {
  return cudaLaunchKernel(function, grid, block, arguments, shared_bytes, stream);
}
EXPORTED cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *launch, const void *function, void **arguments) {
  return cudaLaunchKernel(
      function, launch->gridDim, launch->blockDim, arguments, launch->dynamicSmemBytes, launch->stream);
}

// What the compiler puts around <<<...>>>, and runs when a library with kernels is loaded.
EXPORTED unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream) {
  configurations.push_back({grid, block, shared_bytes, stream});
  return 0;
}
EXPORTED cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes, void *stream) {
  Configuration last = configurations.back();
  configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared_bytes = last.shared_bytes;
  *(cudaStream_t *)stream = last.stream;
  return cudaSuccess;
}
EXPORTED void **__cudaRegisterFatBinary(void *) {
  static void *handle[2];
  return handle;
}
EXPORTED void __cudaRegisterFatBinaryEnd(void **) {}
EXPORTED void __cudaUnregisterFatBinary(void **) {}
EXPORTED char __cudaInitModule(void **) { return 1; }
EXPORTED void __cudaRegisterFunction(
    void **, const char *function, char *, const char *name, int, void *, void *, void *, void *, int *) {
  std::lock_guard<std::mutex> lock(names_mutex);
  names[function] = name;
}
EXPORTED void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int) {}

EXPORTED cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *found, const void *) {
  BEGIN_WITH_CONTEXT;
  memset(found, 0, sizeof *found);
  found->maxThreadsPerBlock = 1024;
  found->numRegs = 32;
  found->binaryVersion = found->ptxVersion = 80;
  found->maxDynamicSharedSizeBytes = 166912;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int) {
  BEGIN_WITH_CONTEXT;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t, cudaFuncAttribute, int, int) {
  BEGIN_WITH_CONTEXT;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *found, const void *, int, size_t, unsigned) {
  BEGIN_WITH_CONTEXT;
  *found = 4;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *found, const void *function, int block, size_t bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(found, function, block, bytes, 0);
}
