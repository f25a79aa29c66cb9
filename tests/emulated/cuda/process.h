// This process's state: the devices that it sees, the current one of each thread, its contexts, its last error.
#pragma once
#include "emulated.h"
#include "stream.h"
#include <vector>

extern thread_local int current_device;

const std::vector<int> &visible_devices();  // their physical numbers, as CUDA_VISIBLE_DEVICES says
cudaError_t failed(cudaError_t error);      // returns it, and keeps it for cudaGetLastError
cudaError_t begin();                        // whether this process may call CUDA at all
bool open_context(int device);              // false where the device has no memory left for it
bool has_context(int device);

// The first lines of nearly every function of the runtime.
#define BEGIN                                             \
  do {                                                    \
    if (cudaError_t error_ = begin()) return failed(error_); \
  } while (0)
#define BEGIN_WITH_CONTEXT \
  BEGIN;                   \
  if (!open_context(current_device)) return failed(cudaErrorMemoryAllocation)
#define BEGIN_ON_STREAM(handle)                                \
  BEGIN_WITH_CONTEXT;                                          \
  Stream *stream = find_stream(handle, current_device);        \
  if (!stream) {                                               \
    emulated_misuse("%s: no such stream: %p", __func__, (void *)handle); \
    return failed(cudaErrorInvalidResourceHandle);             \
  }
// Work can be given only to a stream of the current device.
#define STREAM_OF_CURRENT_DEVICE                                                                        \
  if (stream->device != current_device) {                                                               \
    emulated_misuse("%s: a stream of device %d while device %d is current", __func__, stream->device, current_device); \
    return failed(cudaErrorInvalidResourceHandle);                                                      \
  }
