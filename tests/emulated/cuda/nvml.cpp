// libnvidia-ml.so.1, for torch's count of devices that opens none, and for NCCL's questions about links.
#include <cstdio>
#include <cstdlib>
#define EXPORTED extern "C" __attribute__((visibility("default")))

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3 };

static unsigned devices() {
  const char *words = getenv("EMULATED_DEVICES");
  return words ? (unsigned)atoi(words) : 4;
}

EXPORTED int nvmlInit() { return SUCCESS; }
EXPORTED int nvmlInit_v2() { return SUCCESS; }
EXPORTED int nvmlShutdown() { return SUCCESS; }
EXPORTED const char *nvmlErrorString(int) { return "an error of the emulated NVML"; }

EXPORTED int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = devices();
  return SUCCESS;
}

EXPORTED int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  if (index >= devices()) return INVALID_ARGUMENT;
  *handle = (void *)(size_t)(index + 1);
  return SUCCESS;
}

EXPORTED int nvmlDeviceGetHandleByUUID(const char *, void **handle) {
  *handle = (void *)1;
  return SUCCESS;
}

EXPORTED int nvmlDeviceGetHandleByPciBusId_v2(const char *, void **handle) {
  *handle = (void *)1;
  return SUCCESS;
}

EXPORTED int nvmlDeviceGetUUID(void *handle, char *text, unsigned bytes) {
  snprintf(text, bytes, "GPU-%02x000000-0000-0000-0000-000000000000", (unsigned)(size_t)handle - 1);
  return SUCCESS;
}

EXPORTED int nvmlDeviceGetComputeRunningProcesses(void *, unsigned *count, void *) {
  *count = 0;
  return SUCCESS;
}

EXPORTED int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  *version = 13000;
  return SUCCESS;
}

EXPORTED int nvmlDeviceGetNvLinkRemoteDeviceType() { return NOT_SUPPORTED; }
EXPORTED int nvmlDeviceGetNvLinkRemotePciInfo_v2() { return NOT_SUPPORTED; }
EXPORTED int nvmlDeviceGetGpuFabricInfoV() { return NOT_SUPPORTED; }
EXPORTED int nvmlDeviceGetP2PStatus() { return NOT_SUPPORTED; }
