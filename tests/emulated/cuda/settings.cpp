// The settings and the log; see emulated.h.
#include "emulated.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

EXPORTED size_t emulated_setting(const char *name, size_t otherwise) {
  const char *words = getenv(name);
  return words ? strtoull(words, nullptr, 0) : otherwise;
}

EXPORTED int emulated_physical_devices() { return (int)emulated_setting("EMULATED_DEVICES", 4); }

// One write of a whole line to a file opened for appending: lines of several processes do not mix.
static void write_line(const char *kind, const char *format, va_list values) {
  const char *path = getenv("EMULATED_LOG");
  if (!path) return;
  char line[1024];
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  size_t length = snprintf(line, sizeof line, "%d %.6f %s ", getpid(), now.tv_sec + now.tv_nsec * 1e-9, kind);
  length += vsnprintf(line + length, sizeof line - length - 1, format, values);
  if (length > sizeof line - 2) length = sizeof line - 2;
  line[length++] = '\n';
  int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file < 0) return;
  (void)!write(file, line, length);
  close(file);
}

EXPORTED void emulated_note(const char *format, ...) {
  va_list values;
  va_start(values, format);
  write_line("note", format, values);
  va_end(values);
}

EXPORTED void emulated_misuse(const char *format, ...) {
  va_list values;
  va_start(values, format);
  write_line("misuse", format, values);
  va_end(values);
}
