#include "process.h"
#include "ledger.h"
#include <cstdlib>
#include <set>
#include <string>
#include <unistd.h>

thread_local int current_device = 0;
static thread_local cudaError_t last_error = cudaSuccess;
static int initialised_in = 0;  // the process that first called CUDA
static std::mutex contexts_mutex;
static std::set<int> contexts;  // devices on which this process has one

static std::vector<int> read_visible() {
  std::vector<int> found;
  const char *given = getenv("CUDA_VISIBLE_DEVICES");
  if (!given) {
    for (int device = 0; device < emulated_physical_devices(); device++) found.push_back(device);
    return found;
  }
  // The first that does not exist hides all that follow it.
  for (const char *at = given; *at;) {
    char *end;
    long device = strtol(at, &end, 10);
    if (end == at || device < 0 || device >= emulated_physical_devices()) break;
    found.push_back((int)device);
    at = *end == ',' ? end + 1 : end;
  }
  return found;
}

const std::vector<int> &visible_devices() {
  static std::vector<int> devices = read_visible();
  return devices;
}

cudaError_t failed(cudaError_t error) {
  if (error) last_error = error;
  return error;
}

cudaError_t begin() {
  if (!initialised_in) initialised_in = getpid();
  if (initialised_in != getpid()) {
    emulated_misuse("used after a fork: initialised in process %d", initialised_in);
    return cudaErrorInitializationError;
  }
  return visible_devices().empty() ? cudaErrorNoDevice : cudaSuccess;
}

bool has_context(int device) {
  std::lock_guard<std::mutex> lock(contexts_mutex);
  return contexts.count(device);
}

bool open_context(int device) {
  std::lock_guard<std::mutex> lock(contexts_mutex);
  if (contexts.count(device)) return true;
  size_t bytes = emulated_setting("EMULATED_CONTEXT_BYTES", 450ull << 20);
  int physical = visible_devices()[device];
  if (ledger::used(physical) + bytes > ledger::device_bytes()) {
    emulated_note("no memory for a context on device %d", physical);
    return false;
  }
  ledger::open(physical);
  ledger::take(physical, (long)bytes);
  contexts.insert(device);
  emulated_note("context on device %d", physical);
  return true;
}

EXPORTED cudaError_t cudaGetLastError() {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
EXPORTED cudaError_t cudaPeekAtLastError() { return last_error; }

EXPORTED int emulated_has_context(int device) { return has_context(device); }
EXPORTED int emulated_current_context() { return has_context(current_device) ? current_device + 1 : 0; }
EXPORTED void emulated_set_context(int context) {
  if (context) current_device = context - 1;
}
EXPORTED void emulated_enqueue(cudaStream_t handle, void (*work)(void *), void *argument) {
  find_stream(handle, current_device)->push([work, argument] { work(argument); }, true);
}
EXPORTED void emulated_wait_for_data(cudaStream_t handle) { find_stream(handle, current_device)->wait_data(); }
EXPORTED void emulated_occupy(cudaStream_t handle, double seconds) {
  if (seconds > 0) find_stream(handle, current_device)->occupy(seconds);
}
