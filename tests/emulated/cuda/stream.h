// Streams and events. A stream is a queue that a thread of its own works off in order.
//
// Operators are computed by the CPU in the thread that calls them (operators.cpp), so a stream holds only messages, waits
// for events, copies, and time. What moves data is told from what only takes time: an operator must wait for the former,
// and the CPU runs ahead of the latter, as it does of a GPU.
#pragma once
#include <condition_variable>
#include <cuda_runtime_api.h>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

// A point of a stream's work.
struct Mark {
  void reach();
  bool is_reached();
  void wait();
  double seconds = 0;  // on a monotonic clock, when it was reached

 private:
  std::mutex mutex;
  std::condition_variable changed;
  bool reached = false;
};

struct Stream {
  Stream(int device, unsigned flags, int priority) : device(device), flags(flags), priority(priority) {}
  const int device;
  const unsigned flags;
  const int priority;

  void push(std::function<void()> work, bool moves_data);
  // The same, or at once in this thread where the stream has nothing to do.
  void push_or_do(std::function<void()> work, bool moves_data);
  void occupy(double seconds);
  bool is_idle();
  void wait();       // for all that it was given so far
  void wait_data();  // for all of that which moves data

 private:
  void queue(std::unique_lock<std::mutex> &lock, std::function<void()> work, bool moves_data);
  void work_off();
  void wait_until(unsigned long count, std::unique_lock<std::mutex> &lock);

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> waiting;
  bool is_busy = false, has_thread = false;
  unsigned long given = 0, done = 0, last_data = 0;  // pieces of work; the number of the last that moves data
};

struct Event {
  const int device;
  const unsigned flags;
  std::shared_ptr<Mark> mark;  // of the last recording; none before the first
};

// The stream behind a handle, null where there is none. 0 and the two special handles are the device's own stream.
Stream *find_stream(cudaStream_t handle, int device);
Stream *add_stream(int device, unsigned flags, int priority);
void forget_stream(cudaStream_t handle);
std::vector<Stream *> streams_of(int device);
