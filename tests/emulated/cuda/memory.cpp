// Device memory is memory of this process; what it takes is counted in the ledger, and runs out there.
#include "ledger.h"
#include "process.h"
#include <cstring>
#include <map>
#include <string>
#include <sys/mman.h>

namespace {
const size_t PAGE = 2 << 20;  // the granularity of device memory

struct Block {
  size_t bytes;
  int device;
};
// Never destroyed: threads of streams may outlive main.
std::mutex &blocks_mutex = *new std::mutex;
std::map<char *, Block> &device_blocks = *new std::map<char *, Block>, &pinned_blocks = *new std::map<char *, Block>;

// The block in which an address lies, or the end.
std::map<char *, Block>::iterator find(std::map<char *, Block> &blocks, const void *address) {
  auto after = blocks.upper_bound((char *)address);
  if (after == blocks.begin()) return blocks.end();
  --after;
  return (char *)address < after->first + after->second.bytes ? after : blocks.end();
}

bool is_in(std::map<char *, Block> &blocks, const void *address) {
  std::lock_guard<std::mutex> lock(blocks_mutex);
  return find(blocks, address) != blocks.end();
}

bool is_on_device(const void *address) { return is_in(device_blocks, address); }
bool is_pinned(const void *address) { return is_in(pinned_blocks, address); }

cudaError_t take(std::map<char *, Block> &blocks, void **found, size_t bytes) {
  void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
  std::lock_guard<std::mutex> lock(blocks_mutex);
  blocks[(char *)memory] = {bytes, current_device};
  *found = memory;
  return cudaSuccess;
}

// The kind of a copy must tell the truth about both ends.
bool is_wrong(cudaMemcpyKind kind, const void *to, const void *from) {
  bool to_device = is_on_device(to), from_device = is_on_device(from);
  switch (kind) {
    case cudaMemcpyHostToDevice: return !to_device || from_device;
    case cudaMemcpyDeviceToHost: return to_device || !from_device;
    case cudaMemcpyDeviceToDevice: return !to_device || !from_device;
    default: return false;
  }
}
}  // namespace

#define REFUSE_WRONG(kind, to, from)                                        \
  if (is_wrong(kind, to, from)) {                                           \
    emulated_misuse("%s: not a copy of kind %d", __func__, (int)(kind));    \
    return failed(cudaErrorInvalidValue);                                   \
  }

EXPORTED bool emulated_block(const void *address, char **begin, size_t *bytes) {
  std::lock_guard<std::mutex> lock(blocks_mutex);
  auto found = find(device_blocks, address);
  if (found == device_blocks.end()) return false;
  *begin = found->first;
  *bytes = found->second.bytes;
  return true;
}

EXPORTED cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  BEGIN_WITH_CONTEXT;
  size_t used = ledger::used(visible_devices()[current_device]);
  *total = ledger::device_bytes();
  *free = used > *total ? 0 : *total - used;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaMalloc(void **found, size_t bytes) {
  BEGIN_WITH_CONTEXT;
  *found = nullptr;
  if (!bytes) return cudaSuccess;
  int physical = visible_devices()[current_device];
  bytes = (bytes + PAGE - 1) / PAGE * PAGE;
  if (ledger::used(physical) + bytes > ledger::device_bytes()) return failed(cudaErrorMemoryAllocation);
  if (cudaError_t error = take(device_blocks, found, bytes)) return failed(error);
  ledger::take(physical, (long)bytes);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaFree(void *memory) {
  BEGIN_WITH_CONTEXT;
  if (!memory) return cudaSuccess;
  cudaDeviceSynchronize();
  std::lock_guard<std::mutex> lock(blocks_mutex);
  auto found = device_blocks.find((char *)memory);
  if (found == device_blocks.end()) return failed(cudaErrorInvalidValue);
  munmap(memory, found->second.bytes);
  ledger::take(visible_devices()[found->second.device], -(long)found->second.bytes);
  device_blocks.erase(found);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaMallocAsync(void **found, size_t bytes, cudaStream_t) { return cudaMalloc(found, bytes); }
EXPORTED cudaError_t cudaFreeAsync(void *memory, cudaStream_t) { return cudaFree(memory); }

EXPORTED cudaError_t cudaHostAlloc(void **found, size_t bytes, unsigned) {
  BEGIN_WITH_CONTEXT;
  return failed(take(pinned_blocks, found, bytes));
}

EXPORTED cudaError_t cudaFreeHost(void *memory) {
  std::lock_guard<std::mutex> lock(blocks_mutex);
  auto found = pinned_blocks.find((char *)memory);
  if (found == pinned_blocks.end()) return failed(cudaErrorInvalidValue);
  munmap(memory, found->second.bytes);
  pinned_blocks.erase(found);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaHostRegister(void *, size_t, unsigned) { return cudaSuccess; }
EXPORTED cudaError_t cudaHostUnregister(void *) { return cudaSuccess; }

EXPORTED cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *found, const void *address) {
  BEGIN;
  memset(found, 0, sizeof *found);
  std::lock_guard<std::mutex> lock(blocks_mutex);
  auto block = find(device_blocks, address);
  if (block != device_blocks.end()) {
    found->type = cudaMemoryTypeDevice;
    found->device = block->second.device;
    found->devicePointer = (void *)address;
    return cudaSuccess;
  }
  bool pinned = find(pinned_blocks, address) != pinned_blocks.end();
  found->type = pinned ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  found->device = -2;  // cudaInvalidDeviceId
  found->hostPointer = (void *)address;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  BEGIN_ON_STREAM(nullptr);
  REFUSE_WRONG(kind, to, from);
  stream->wait();
  memmove(to, from, bytes);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaMemcpyAsync(
    void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t handle) {
  BEGIN_ON_STREAM(handle);
  STREAM_OF_CURRENT_DEVICE;
  REFUSE_WRONG(kind, to, from);
  if (kind == cudaMemcpyHostToDevice && !is_pinned(from)) {  // such memory is the caller's again when this returns
    std::string copy((const char *)from, bytes);
    stream->push_or_do([=] { memcpy(to, copy.data(), bytes); }, true);
  } else {
    stream->push_or_do([=] { memmove(to, from, bytes); }, true);
  }
  return cudaSuccess;
}

EXPORTED cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t bytes, cudaStream_t handle) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, handle);
}

EXPORTED cudaError_t cudaMemcpy2DAsync(
    void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t rows, cudaMemcpyKind,
    cudaStream_t handle) {
  BEGIN_ON_STREAM(handle);
  STREAM_OF_CURRENT_DEVICE;
  auto copy = [=] {
    for (size_t row = 0; row < rows; row++)
      memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
  };
  stream->push_or_do(copy, true);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaMemcpyToSymbol(const void *, const void *, size_t, size_t, cudaMemcpyKind) {
  BEGIN_WITH_CONTEXT;
  return cudaSuccess;  // only kernels read symbols, and none is run
}

EXPORTED cudaError_t cudaGetSymbolAddress(void **found, const void *) {
  BEGIN_WITH_CONTEXT;
  static char symbol[65536];
  *found = symbol;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
  BEGIN_ON_STREAM(nullptr);
  stream->wait();
  memset(memory, value, bytes);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t handle) {
  BEGIN_ON_STREAM(handle);
  STREAM_OF_CURRENT_DEVICE;
  stream->push_or_do([=] { memset(memory, value, bytes); }, true);
  return cudaSuccess;
}
