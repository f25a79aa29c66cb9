#include "stream.h"
#include "emulated.h"
#include <chrono>
#include <map>
#include <set>
#include <thread>

void Mark::reach() {
  std::lock_guard<std::mutex> lock(mutex);
  reached = true;
  seconds = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  changed.notify_all();
}

bool Mark::is_reached() {
  std::lock_guard<std::mutex> lock(mutex);
  return reached;
}

void Mark::wait() {
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&] { return reached; });
}

void Stream::queue(std::unique_lock<std::mutex> &, std::function<void()> work, bool moves_data) {
  waiting.push_back(std::move(work));
  given++;
  if (moves_data) last_data = given;
  if (!has_thread) {
    has_thread = true;
    std::thread([this] { work_off(); }).detach();  // as long as the process: a device's work has no owner to join it
  }
  changed.notify_all();
}

void Stream::push(std::function<void()> work, bool moves_data) {
  std::unique_lock<std::mutex> lock(mutex);
  queue(lock, std::move(work), moves_data);
}

void Stream::push_or_do(std::function<void()> work, bool moves_data) {
  std::unique_lock<std::mutex> lock(mutex);
  if (!waiting.empty() || is_busy) return queue(lock, std::move(work), moves_data);
  given++;
  done++;
  lock.unlock();
  work();
}

void Stream::occupy(double seconds) {
  push([seconds] { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }, false);
}

void Stream::work_off() {
  std::unique_lock<std::mutex> lock(mutex);
  for (;;) {
    changed.wait(lock, [&] { return !waiting.empty(); });
    auto work = std::move(waiting.front());
    waiting.pop_front();
    is_busy = true;
    lock.unlock();
    work();
    work = nullptr;  // lets go of what it held before anybody is told that it is done
    lock.lock();
    is_busy = false;
    done++;
    changed.notify_all();
  }
}

bool Stream::is_idle() {
  std::lock_guard<std::mutex> lock(mutex);
  return waiting.empty() && !is_busy;
}

void Stream::wait_until(unsigned long count, std::unique_lock<std::mutex> &lock) {
  changed.wait(lock, [&] { return done >= count; });
}

void Stream::wait() {
  std::unique_lock<std::mutex> lock(mutex);
  wait_until(given, lock);
}

void Stream::wait_data() {
  std::unique_lock<std::mutex> lock(mutex);
  wait_until(last_data, lock);
}

// Never destroyed: threads of streams may outlive main.
static std::mutex &registry_mutex = *new std::mutex;
static std::set<Stream *> &registry = *new std::set<Stream *>;
static std::map<int, Stream *> &own = *new std::map<int, Stream *>;

Stream *add_stream(int device, unsigned flags, int priority) {
  auto *stream = new Stream(device, flags, priority);
  std::lock_guard<std::mutex> lock(registry_mutex);
  registry.insert(stream);
  return stream;
}

Stream *find_stream(cudaStream_t handle, int device) {
  std::unique_lock<std::mutex> lock(registry_mutex);
  auto *stream = (Stream *)handle;
  if (handle != nullptr && handle != cudaStreamLegacy && handle != cudaStreamPerThread)
    return registry.count(stream) ? stream : nullptr;
  auto *&default_stream = own[device];
  if (!default_stream) registry.insert(default_stream = new Stream(device, 0, 0));
  return default_stream;
}

void forget_stream(cudaStream_t handle) {  // not freed: its thread may still work for it
  std::lock_guard<std::mutex> lock(registry_mutex);
  registry.erase((Stream *)handle);
}

std::vector<Stream *> streams_of(int device) {
  std::lock_guard<std::mutex> lock(registry_mutex);
  std::vector<Stream *> found;
  for (auto *stream : registry)
    if (stream->device == device) found.push_back(stream);
  return found;
}
