// What the emulated libraries share: the settings, the log, and work that is put on a stream. All of it lives in the
// emulated CUDA runtime (libcudart.so.13), which the others are linked to.
#pragma once
#include <cstddef>
#include <cuda_runtime_api.h>

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Lines of the file that EMULATED_LOG names: "PID SECONDS note|misuse WORDS". A note tells what happened, such as a
// context that was made; a misuse is what real CUDA or NCCL would punish, or what the emulation cannot compute.
EXPORTED void emulated_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
EXPORTED void emulated_misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The number in an environment variable, or what it is without one. Bytes may be written in hexadecimal.
EXPORTED size_t emulated_setting(const char *name, size_t otherwise);
EXPORTED int emulated_physical_devices();

// Puts work that reads or writes memory behind all that the stream has to do.
EXPORTED void emulated_enqueue(cudaStream_t stream, void (*work)(void *), void *argument);
// Returns when all that reads or writes memory on the stream has been done: what only takes time may still be to come.
EXPORTED void emulated_wait_for_data(cudaStream_t stream);
// Keeps the stream busy for a while, without memory.
EXPORTED void emulated_occupy(cudaStream_t stream, double seconds);

// For the emulated driver, whose functions count devices as this process sees them.
EXPORTED int emulated_has_context(int device);
EXPORTED int emulated_current_context();  // the current device plus one; 0 without a context
EXPORTED void emulated_set_context(int context);
// The block of device memory in which an address lies; false where it lies in none.
EXPORTED bool emulated_block(const void *address, char **begin, size_t *bytes);
