// The runtime's functions for streams and events, with the errors that real CUDA gives.
#include "process.h"

static Event *event_of(cudaEvent_t handle) { return (Event *)handle; }

EXPORTED cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned flags, int priority) {
  BEGIN_WITH_CONTEXT;
  *handle = (cudaStream_t)add_stream(current_device, flags, priority);
  return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned flags) {
  return cudaStreamCreateWithPriority(handle, flags, 0);
}
EXPORTED cudaError_t cudaStreamCreate(cudaStream_t *handle) { return cudaStreamCreateWithPriority(handle, 0, 0); }

EXPORTED cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  forget_stream(handle);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaStreamQuery(cudaStream_t handle) {
  BEGIN_ON_STREAM(handle);
  return stream->is_idle() ? cudaSuccess : cudaErrorNotReady;
}

EXPORTED cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  BEGIN_ON_STREAM(handle);
  stream->wait();
  return cudaSuccess;
}

EXPORTED cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority) {
  BEGIN_ON_STREAM(handle);
  *priority = stream->priority;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  BEGIN_ON_STREAM(handle);
  auto mark = event_of(event)->mark;
  if (mark && !mark->is_reached()) stream->push([mark] { mark->wait(); }, true);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t call, void *value, unsigned) {
  BEGIN_ON_STREAM(handle);
  stream->push([=] { call(handle, cudaSuccess, value); }, true);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t call, void *value) {
  BEGIN_ON_STREAM(handle);
  stream->push([=] { call(value); }, true);
  return cudaSuccess;
}

// Nothing is ever captured into a graph.
EXPORTED cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t, cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *, const cudaGraphNode_t **,
    const cudaGraphEdgeData **, size_t *) {
  if (status) *status = cudaStreamCaptureStatusNone;
  if (id) *id = 0;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  *mode = cudaStreamCaptureModeGlobal;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags) {
  BEGIN_WITH_CONTEXT;
  *handle = (cudaEvent_t) new Event{current_device, flags, nullptr};
  return cudaSuccess;
}
EXPORTED cudaError_t cudaEventCreate(cudaEvent_t *handle) { return cudaEventCreateWithFlags(handle, 0); }

EXPORTED cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  delete event_of(handle);  // whoever waits for it holds the mark
  return cudaSuccess;
}

EXPORTED cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t stream_handle, unsigned) {
  BEGIN_ON_STREAM(stream_handle);
  STREAM_OF_CURRENT_DEVICE;
  Event *event = event_of(handle);
  if (event->device != stream->device) {
    emulated_misuse("%s: an event of device %d on a stream of %d", __func__, event->device, stream->device);
    return failed(cudaErrorInvalidResourceHandle);
  }
  auto mark = event->mark = std::make_shared<Mark>();
  stream->push_or_do([mark] { mark->reach(); }, false);
  return cudaSuccess;
}
EXPORTED cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) {
  return cudaEventRecordWithFlags(handle, stream, 0);
}

EXPORTED cudaError_t cudaEventQuery(cudaEvent_t handle) {
  BEGIN;
  auto mark = event_of(handle)->mark;
  return !mark || mark->is_reached() ? cudaSuccess : cudaErrorNotReady;
}

EXPORTED cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  BEGIN;
  if (auto mark = event_of(handle)->mark) mark->wait();
  return cudaSuccess;
}

EXPORTED cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t one, cudaEvent_t other) {
  BEGIN;
  Event *first = event_of(one), *second = event_of(other);
  if (!first->mark || !second->mark || ((first->flags | second->flags) & cudaEventDisableTiming) ||
      first->device != second->device) {
    emulated_misuse("%s: events that were not recorded, tell no time, or are of two devices", __func__);
    return failed(cudaErrorInvalidResourceHandle);
  }
  if (!first->mark->is_reached() || !second->mark->is_reached()) {
    emulated_misuse("%s: an event that the device has not come to", __func__);
    return failed(cudaErrorNotReady);
  }
  *milliseconds = (float)((second->mark->seconds - first->mark->seconds) * 1e3);
  return cudaSuccess;
}
