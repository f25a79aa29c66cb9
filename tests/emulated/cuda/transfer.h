// Messages between the ranks of a communicator, over a mesh of unix sockets on this host.
//
// A message is its length, its bytes and an acknowledgement: a send ends when the receiver has it all, so a program that
// counts on NCCL's buffers stands still here. A peer that has died is waited for without end, as NCCL's kernels do.
#pragma once
#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

struct Message {
  bool is_send;
  char *memory;
  size_t bytes;
  int peer;
};

// The sockets of one rank of a communicator.
class Mesh {
 public:
  Mesh(std::string id, int rank, int ranks) : id(std::move(id)), rank(rank), ranks(ranks), to(ranks, -1), from(ranks, -1) {}
  // Meets all others; ``place`` is told to them. Returns the rank that is at the same place, -1 where none is, and -2
  // where they do not come.
  int meet(const std::string &place);
  // Moves all messages, those of one peer and direction in order, all else at once.
  void move(const std::vector<Message> &messages);

  const std::string id;
  const int rank, ranks;
  std::atomic<bool> is_aborted{false};
  std::atomic<bool> has_lost_peer{false};  // reported as an error where EMULATED_NCCL_REPORTS_LOSS is 1

 private:
  void wait_for_ever();
  std::vector<int> to, from;  // a socket to and one from each other rank
};
