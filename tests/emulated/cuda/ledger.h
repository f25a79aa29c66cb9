// How many bytes every process holds on every device: a table in a file that all processes map.
#pragma once
#include <cstddef>

namespace ledger {
size_t device_bytes();              // that a device has (EMULATED_DEVICE_BYTES)
size_t used(int physical_device);   // by all processes that live
void open(int physical_device);     // this process holds nothing yet, whoever had its number before
void take(int physical_device, long bytes);  // by this process; negative: it gives them back
}  // namespace ledger
