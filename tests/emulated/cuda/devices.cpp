// The runtime's functions about devices: A100s, as many as EMULATED_DEVICES says.
#include "ledger.h"
#include "process.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>

static bool exists(int device) { return device >= 0 && device < (int)visible_devices().size(); }

EXPORTED cudaError_t cudaGetDeviceCount(int *count) {
  cudaError_t error = begin();
  *count = (int)visible_devices().size();
  return failed(error);
}

EXPORTED cudaError_t cudaSetDevice(int device) {
  BEGIN;
  if (!exists(device)) {
    emulated_misuse("cudaSetDevice: no device %d", device);
    return failed(cudaErrorInvalidDevice);
  }
  current_device = device;
  return open_context(device) ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}

EXPORTED cudaError_t cudaGetDevice(int *device) {
  BEGIN;
  *device = current_device;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaDeviceSynchronize() {
  BEGIN_WITH_CONTEXT;
  for (Stream *stream : streams_of(current_device)) stream->wait();
  return cudaSuccess;
}

// Limits of compute capability 8.0, as torch asks for them in one of two ways.
static int attribute(cudaDeviceAttr name) {
  switch ((int)name) {
    case cudaDevAttrComputeCapabilityMajor: return 8;
    case cudaDevAttrMultiProcessorCount: return 108;
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 49152;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 166912;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return 167936;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrMaxGridDimY: return 65535;
    case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrCooperativeLaunch: return 1;
    case cudaDevAttrMaxRegistersPerBlock: return 65536;
    case cudaDevAttrL2CacheSize: return 40 << 20;
    default: return 0;
  }
}

EXPORTED cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr name, int device) {
  BEGIN;
  if (!exists(device)) return failed(cudaErrorInvalidDevice);
  *value = attribute(name);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaGetDeviceProperties(cudaDeviceProp *found, int device) {
  BEGIN;
  if (!exists(device)) return failed(cudaErrorInvalidDevice);
  memset(found, 0, sizeof *found);
  const char *name = getenv("EMULATED_NAME");
  snprintf(found->name, sizeof found->name, "%s", name ? name : "NVIDIA A100-SXM4-80GB");
  for (int i = 0; i < 16; i++) found->uuid.bytes[i] = (char)(16 * visible_devices()[device] + i);
  found->totalGlobalMem = ledger::device_bytes();
  found->major = attribute(cudaDevAttrComputeCapabilityMajor);
  found->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
  found->warpSize = attribute(cudaDevAttrWarpSize);
  found->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
  found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024;
  found->maxThreadsDim[2] = 64;
  found->maxGridSize[0] = attribute(cudaDevAttrMaxGridDimX);
  found->maxGridSize[1] = found->maxGridSize[2] = attribute(cudaDevAttrMaxGridDimY);
  found->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  found->maxBlocksPerMultiProcessor = 32;
  found->sharedMemPerBlock = attribute(cudaDevAttrMaxSharedMemoryPerBlock);
  found->sharedMemPerBlockOptin = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  found->sharedMemPerMultiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  found->reservedSharedMemPerBlock = 1024;
  found->regsPerBlock = found->regsPerMultiprocessor = attribute(cudaDevAttrMaxRegistersPerBlock);
  found->totalConstMem = 65536;
  found->memPitch = 2147483647;
  found->textureAlignment = 512;
  found->texturePitchAlignment = 32;
  found->l2CacheSize = attribute(cudaDevAttrL2CacheSize);
  found->memoryBusWidth = 5120;
  found->pciBusID = visible_devices()[device] + 1;
  found->asyncEngineCount = 3;
  found->canMapHostMemory = found->concurrentKernels = found->ECCEnabled = found->unifiedAddressing = 1;
  found->streamPrioritiesSupported = found->globalL1CacheSupported = found->localL1CacheSupported = 1;
  found->managedMemory = found->cooperativeLaunch = found->hostRegisterSupported = 1;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device) {
  BEGIN;
  if (!exists(device)) return failed(cudaErrorInvalidDevice);
  snprintf(text, bytes, "00000000:%02X:00.0", visible_devices()[device] + 1);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaDeviceCanAccessPeer(int *value, int, int) {
  BEGIN;
  *value = 1;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) {
  BEGIN_WITH_CONTEXT;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  BEGIN_WITH_CONTEXT;
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaDriverGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaProfilerStart() { return cudaSuccess; }
EXPORTED cudaError_t cudaProfilerStop() { return cudaSuccess; }

EXPORTED const char *cudaGetErrorName(cudaError_t error) {
  switch ((int)error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInitializationError: return "cudaErrorInitializationError";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorNotSupported: return "cudaErrorNotSupported";
    default: return "an error that the emulation has no name for";
  }
}

EXPORTED const char *cudaGetErrorString(cudaError_t error) {
  switch ((int)error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInitializationError: return "initialization error";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorNotSupported: return "operation not supported";
    default: return "an error that the emulation has no words for";
  }
}
