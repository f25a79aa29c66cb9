#include "transfer.h"
#include "emulated.h"
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace {
struct Greeting {
  int rank;
  char place[16];
};

// In the abstract namespace: nothing is left on the disk.
struct Address {
  sockaddr_un value{};
  socklen_t bytes;
  Address(const std::string &id, int rank) {
    std::string name = "emulated-nccl." + id + "." + std::to_string(rank);
    value.sun_family = AF_UNIX;
    memcpy(value.sun_path + 1, name.data(), name.size());
    bytes = offsetof(sockaddr_un, sun_path) + 1 + name.size();
  }
  const sockaddr *get() const { return (const sockaddr *)&value; }
};

int connected(const Address &address) {
  for (;;) {
    int socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!connect(socket_, address.get(), address.bytes)) return socket_;
    close(socket_);
    usleep(2000);  // it may not listen yet
  }
}

// The messages between this rank and one other, in one direction.
class Flow {
 public:
  Flow(int socket_, bool is_send) : socket_(socket_), is_send(is_send) {}
  void add(const Message &message) { messages.push_back(message); }
  bool is_over() const { return at >= messages.size(); }
  pollfd awaited() const { return {socket_, (short)(writes() ? POLLOUT : POLLIN), 0}; }
  // Goes on where the socket is ready; false: the peer has gone.
  bool advance();

 private:
  enum Phase { LENGTH, BYTES, ACKNOWLEDGEMENT };
  bool writes() const { return is_send == (phase != ACKNOWLEDGEMENT); }
  ssize_t pass(void *memory, size_t bytes) { return writes() ? write(socket_, memory, bytes) : read(socket_, memory, bytes); }
  bool next_phase();

  const int socket_;
  const bool is_send;
  std::vector<Message> messages;
  size_t at = 0, passed = 0;  // the message, and how much of the phase's bytes
  Phase phase = LENGTH;
  uint64_t length = 0;
  char acknowledgement = 1;
};

bool Flow::advance() {
  Message &message = messages[at];
  if (phase == LENGTH && is_send && !passed) length = message.bytes;
  char *memory = phase == LENGTH ? (char *)&length : phase == BYTES ? message.memory : &acknowledgement;
  size_t bytes = phase == LENGTH ? sizeof length : phase == BYTES ? message.bytes : 1;
  ssize_t count = pass(memory + passed, bytes - passed);
  if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) return false;
  if (count > 0 && (passed += count) == bytes) return next_phase();
  return true;
}

bool Flow::next_phase() {
  passed = 0;
  if (phase == LENGTH && !is_send && length != messages[at].bytes) {
    emulated_misuse("NCCL: %zu bytes were sent where %zu are received", (size_t)length, messages[at].bytes);
    abort();
  }
  if (phase == ACKNOWLEDGEMENT) {
    phase = LENGTH;
    at++;
  } else {
    phase = phase == LENGTH && messages[at].bytes ? BYTES : ACKNOWLEDGEMENT;
  }
  return true;
}
}  // namespace

int Mesh::meet(const std::string &place) {
  Address own(id, rank);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), same = -1;
  if (bind(listener, own.get(), own.bytes) || listen(listener, 128)) return -2;
  Greeting greeting{rank, {}};
  strncpy(greeting.place, place.c_str(), sizeof greeting.place - 1);
  for (int peer = 0; peer < ranks; peer++) {
    if (peer == rank) continue;
    to[peer] = connected(Address(id, peer));
    if (write(to[peer], &greeting, sizeof greeting) != sizeof greeting) return -2;
  }
  for (int count = 1; count < ranks; count++) {
    Greeting theirs;
    int socket_ = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (recv(socket_, &theirs, sizeof theirs, MSG_WAITALL) != sizeof theirs) return -2;
    from[theirs.rank] = socket_;
    if (place == theirs.place) same = theirs.rank;
  }
  close(listener);
  for (int peer = 0; peer < ranks; peer++)
    if (peer != rank)
      for (int socket_ : {to[peer], from[peer]}) fcntl(socket_, F_SETFL, O_NONBLOCK);
  return same;
}

void Mesh::wait_for_ever() {
  emulated_note("rank %d has lost a peer", rank);
  has_lost_peer = true;
  if (emulated_setting("EMULATED_NCCL_REPORTS_LOSS", 0)) return;
  while (!is_aborted) usleep(20000);
}

void Mesh::move(const std::vector<Message> &messages) {
  std::map<std::pair<int, bool>, Flow> flows;
  std::vector<Message> sent, received;  // by this rank to itself
  for (const Message &message : messages) {
    if (message.peer == rank) {
      (message.is_send ? sent : received).push_back(message);
      continue;
    }
    int socket_ = message.is_send ? to[message.peer] : from[message.peer];
    flows.try_emplace({message.peer, message.is_send}, socket_, message.is_send).first->second.add(message);
  }
  for (size_t i = 0; i < sent.size() && i < received.size(); i++)
    memmove(received[i].memory, sent[i].memory, sent[i].bytes);
  while (!is_aborted) {
    std::vector<pollfd> awaited;
    std::vector<Flow *> open;
    for (auto &[key, flow] : flows)
      if (!flow.is_over()) {
        awaited.push_back(flow.awaited());
        open.push_back(&flow);
      }
    if (open.empty()) return;
    poll(awaited.data(), awaited.size(), 100);
    for (size_t i = 0; i < open.size(); i++)
      if (awaited[i].revents && !open[i]->advance()) return wait_for_ever();
  }
}
