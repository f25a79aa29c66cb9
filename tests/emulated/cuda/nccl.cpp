// A libnccl.so.2: communicators, point-to-point messages and the collectives that torch's barrier and pipelines use.
// Operations run on the stream they are given, in its thread; see transfer.h.
#include "emulated.h"
#include "transfer.h"
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <nccl.h>
#include <sys/random.h>

struct ncclComm : Mesh {
  ncclComm(std::string id, int rank, int ranks, int device) : Mesh(std::move(id), rank, ranks), device(device) {}
  const int device;
  void *buffers = nullptr;  // device memory that NCCL keeps for a communicator
};

static char last_error[200] = "";

static size_t element_bytes(ncclDataType_t type) {
  switch (type) {
    case ncclInt8: case ncclUint8: case ncclFloat8e4m3: case ncclFloat8e5m2: return 1;
    case ncclFloat16: case ncclBfloat16: return 2;
    case ncclInt32: case ncclUint32: case ncclFloat32: return 4;
    default: return 8;
  }
}

// --- communicators

EXPORTED ncclResult_t ncclGetVersion(int *version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

EXPORTED ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  memset(id, 0, sizeof *id);
  unsigned char random[8];
  if (getrandom(random, sizeof random, 0) != sizeof random) return ncclSystemError;
  for (size_t i = 0; i < sizeof random; i++) snprintf(id->internal + 2 * i, 3, "%02x", random[i]);
  return ncclSuccess;
}

static ncclResult_t make(ncclComm_t *made, int ranks, const char *id, int rank) {
  int device;
  cudaGetDevice(&device);
  auto comm = std::make_unique<ncclComm>(id, rank, ranks, device);
  size_t bytes = emulated_setting("EMULATED_NCCL_BYTES", 32ull << 20);
  if (bytes && cudaMalloc(&comm->buffers, bytes)) {
    cudaGetLastError();
    snprintf(last_error, sizeof last_error, "Cuda failure 2 'out of memory'");
    return ncclUnhandledCudaError;
  }
  char place[16] = {};
  cudaDeviceGetPCIBusId(place, sizeof place, device);
  int same = comm->meet(place);
  if (same == -2) return ncclSystemError;
  if (same >= 0) {
    const char *words = "Duplicate GPU detected : rank %d and rank %d both on CUDA device %s";
    snprintf(last_error, sizeof last_error, words, rank, same, place);
    return ncclInvalidUsage;
  }
  emulated_note("communicator %s: rank %d of %d on device %d", id, rank, ranks, device);
  *made = comm.release();
  return ncclSuccess;
}

EXPORTED ncclResult_t ncclCommInitRank(ncclComm_t *made, int ranks, ncclUniqueId id, int rank) {
  return make(made, ranks, id.internal, rank);
}
EXPORTED ncclResult_t ncclCommInitRankConfig(ncclComm_t *made, int ranks, ncclUniqueId id, int rank, ncclConfig_t *) {
  return make(made, ranks, id.internal, rank);
}
EXPORTED ncclResult_t ncclCommInitRankScalable(
    ncclComm_t *made, int ranks, int rank, int, ncclUniqueId *ids, ncclConfig_t *) {
  return make(made, ranks, ids[0].internal, rank);
}

EXPORTED ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->is_aborted = true;
  return ncclSuccess;
}
EXPORTED ncclResult_t ncclCommDestroy(ncclComm_t comm) { return ncclCommAbort(comm); }
EXPORTED ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclSuccess; }

EXPORTED ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
  bool reports = emulated_setting("EMULATED_NCCL_REPORTS_LOSS", 0);
  *error = comm->has_lost_peer && reports ? ncclRemoteError : ncclSuccess;
  return ncclSuccess;
}
EXPORTED ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
  *count = comm->ranks;
  return ncclSuccess;
}
EXPORTED ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
  *rank = comm->rank;
  return ncclSuccess;
}
EXPORTED ncclResult_t ncclCommRegister(const ncclComm_t, void *, size_t, void **handle) {
  *handle = nullptr;
  return ncclSuccess;
}
EXPORTED ncclResult_t ncclCommDeregister(const ncclComm_t, void *) { return ncclSuccess; }
EXPORTED ncclResult_t ncclMemAlloc(void **memory, size_t bytes) {
  return cudaMalloc(memory, bytes) ? ncclUnhandledCudaError : ncclSuccess;
}
EXPORTED ncclResult_t ncclMemFree(void *memory) { return cudaFree(memory) ? ncclUnhandledCudaError : ncclSuccess; }

EXPORTED const char *ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case ncclInvalidUsage: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    default: return "an error that the emulation has no words for";
  }
}
EXPORTED const char *ncclGetLastError(ncclComm_t) { return last_error; }

// --- operations, which a group puts together into one job for each communicator and stream

namespace {
struct Job {
  explicit Job(ncclComm *comm) : comm(comm) {}
  ncclComm *const comm;
  std::vector<Message> messages;
  std::vector<std::unique_ptr<char[]>> memory;     // that messages use and nobody else knows
  std::vector<std::function<void()>> afterwards;
};
thread_local int depth = 0;
thread_local std::map<std::pair<ncclComm *, cudaStream_t>, std::unique_ptr<Job>> open_jobs;

void run(void *pointer) {
  std::unique_ptr<Job> job((Job *)pointer);
  job->comm->move(job->messages);
  for (auto &work : job->afterwards) work();
}

Job &job_of(ncclComm *comm, cudaStream_t stream) {
  int device;
  cudaGetDevice(&device);
  if (device != comm->device)
    emulated_misuse("NCCL: a communicator of device %d while device %d is current", comm->device, device);
  auto &job = open_jobs[{comm, stream}];
  if (!job) job = std::make_unique<Job>(comm);
  return *job;
}

template <class T>
void reduce(void *result, const char *other, size_t count, ncclRedOp_t how) {
  T *a = (T *)result;
  const T *b = (const T *)other;
  for (size_t i = 0; i < count; i++) {
    switch (how) {
      case ncclMax: a[i] = a[i] > b[i] ? a[i] : b[i]; break;
      case ncclMin: a[i] = a[i] < b[i] ? a[i] : b[i]; break;
      case ncclProd: a[i] = T(a[i] * b[i]); break;
      default: a[i] = T(a[i] + b[i]);
    }
  }
}

void reduce(void *result, const char *other, size_t count, ncclDataType_t type, ncclRedOp_t how) {
  switch (type) {
    case ncclFloat32: return reduce<float>(result, other, count, how);
    case ncclFloat64: return reduce<double>(result, other, count, how);
    case ncclInt64: return reduce<int64_t>(result, other, count, how);
    case ncclInt32: return reduce<int32_t>(result, other, count, how);
    case ncclUint8: return reduce<uint8_t>(result, other, count, how);
    default: emulated_misuse("NCCL: the emulation reduces no numbers of type %d", (int)type);
  }
}
}  // namespace

EXPORTED ncclResult_t ncclGroupStart() {
  depth++;
  return ncclSuccess;
}

EXPORTED ncclResult_t ncclGroupEnd() {
  if (--depth) return ncclSuccess;
  for (auto &[key, job] : open_jobs) emulated_enqueue(key.second, run, job.release());
  open_jobs.clear();
  return ncclSuccess;
}

EXPORTED ncclResult_t ncclSend(
    const void *memory, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  ncclGroupStart();
  job_of(comm, stream).messages.push_back({true, (char *)memory, count * element_bytes(type), peer});
  return ncclGroupEnd();
}

EXPORTED ncclResult_t ncclRecv(
    void *memory, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  ncclGroupStart();
  job_of(comm, stream).messages.push_back({false, (char *)memory, count * element_bytes(type), peer});
  return ncclGroupEnd();
}

// Everybody sends to everybody, and each reduces for itself.
EXPORTED ncclResult_t ncclAllReduce(
    const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t how, ncclComm_t comm,
    cudaStream_t stream) {
  ncclGroupStart();
  Job &job = job_of(comm, stream);
  size_t bytes = count * element_bytes(type);
  std::vector<char *> received;
  for (int peer = 0; peer < comm->ranks; peer++) {
    if (peer == comm->rank) continue;
    job.memory.push_back(std::make_unique<char[]>(bytes));
    received.push_back(job.memory.back().get());
    job.messages.push_back({true, (char *)in, bytes, peer});
    job.messages.push_back({false, received.back(), bytes, peer});
  }
  job.afterwards.push_back([=] {
    if (in != out) memmove(out, in, bytes);
    for (char *other : received) reduce(out, other, count, type, how);
  });
  return ncclGroupEnd();
}

EXPORTED ncclResult_t ncclAllGather(
    const void *in, void *out, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) {
  ncclGroupStart();
  Job &job = job_of(comm, stream);
  size_t bytes = count * element_bytes(type);
  for (int peer = 0; peer < comm->ranks; peer++) {
    job.messages.push_back({true, (char *)in, bytes, peer});
    job.messages.push_back({false, (char *)out + peer * bytes, bytes, peer});
  }
  return ncclGroupEnd();
}

EXPORTED ncclResult_t ncclBroadcast(
    const void *in, void *out, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream) {
  ncclGroupStart();
  Job &job = job_of(comm, stream);
  size_t bytes = count * element_bytes(type);
  for (int peer = 0; peer < comm->ranks && comm->rank == root; peer++)
    job.messages.push_back({true, (char *)in, bytes, peer});
  job.messages.push_back({false, (char *)out, bytes, root});
  return ncclGroupEnd();
}
EXPORTED ncclResult_t ncclBcast(
    void *memory, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream) {
  return ncclBroadcast(memory, memory, count, type, root, comm, stream);
}
