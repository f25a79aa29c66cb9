// libcuda.so.1: the few functions of the driver that torch really calls. generate.py adds the others, which only have to
// be there. The runtime hands out the same functions as entry points; it may not be linked to the driver, so this file is
// compiled into both.
#include "emulated.h"
#include <cstdint>
#include <cuda.h>
#include <string>
#include <unordered_map>

#ifdef INSIDE_RUNTIME
#define DRIVER extern "C"  // hidden, as all that is not exported
#else
#define DRIVER EXPORTED
#endif

DRIVER CUresult cuInit(unsigned) { return CUDA_SUCCESS; }

DRIVER CUresult cuDriverGetVersion(int *version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

DRIVER CUresult cuGetErrorString(CUresult, const char **words) {
  *words = "an error of the emulated driver";
  return CUDA_SUCCESS;
}

DRIVER CUresult cuGetErrorName(CUresult, const char **words) {
  *words = "CUDA_ERROR";
  return CUDA_SUCCESS;
}

DRIVER CUresult cuDeviceGet(CUdevice *device, int number) {
  *device = number;
  return CUDA_SUCCESS;
}

DRIVER CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute, CUdevice) {
  *value = 0;
  return CUDA_SUCCESS;
}

DRIVER CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
  if (flags) *flags = 0;
  *active = emulated_has_context(device);
  return CUDA_SUCCESS;
}

DRIVER CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  *context = (CUcontext)(uintptr_t)(device + 1);
  return CUDA_SUCCESS;
}

DRIVER CUresult cuCtxGetCurrent(CUcontext *context) {
  *context = (CUcontext)(uintptr_t)emulated_current_context();
  return CUDA_SUCCESS;
}

DRIVER CUresult cuCtxSetCurrent(CUcontext context) {
  emulated_set_context((int)(uintptr_t)context);
  return CUDA_SUCCESS;
}

DRIVER CUresult cuMemGetAddressRange(CUdeviceptr *begin, size_t *bytes, CUdeviceptr address) {
  char *found;
  size_t size;
  if (!emulated_block((const void *)address, &found, &size)) return CUDA_ERROR_INVALID_VALUE;
  if (begin) *begin = (CUdeviceptr)found;
  if (bytes) *bytes = size;
  return CUDA_SUCCESS;
}

#ifdef INSIDE_RUNTIME
static CUresult missing() {
  emulated_misuse("a function of the driver that the emulation lacks");
  return CUDA_ERROR_NOT_SUPPORTED;
}

EXPORTED cudaError_t cudaGetDriverEntryPointByVersion(
    const char *name, void **function, unsigned, unsigned long long, cudaDriverEntryPointQueryResult *result) {
  static const std::unordered_map<std::string, void *> functions = {
      {"cuGetErrorString", (void *)cuGetErrorString},
      {"cuDeviceGet", (void *)cuDeviceGet},
      {"cuDeviceGetAttribute", (void *)cuDeviceGetAttribute},
      {"cuDevicePrimaryCtxGetState", (void *)cuDevicePrimaryCtxGetState},
      {"cuCtxGetCurrent", (void *)cuCtxGetCurrent},
      {"cuCtxSetCurrent", (void *)cuCtxSetCurrent},
      {"cuMemGetAddressRange", (void *)cuMemGetAddressRange},
  };
  auto found = functions.find(name);
  *function = found == functions.end() ? (void *)missing : found->second;
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
#endif
