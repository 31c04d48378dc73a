// How a kernel notes a wrong value without waiting for anybody: the host reads `record` when it next waits for the device
// and raises (backend/faults.py). record: 3 x int64, (kind, value, limit), 0 in its first place while nothing happened.
// The first fault is kept; which one is first may differ from run to run where there are several.
#pragma once

__device__ inline void report_fault(long long* record, long long kind, long long value, long long limit) {
  if (atomicCAS((unsigned long long*)record, 0ull, (unsigned long long)kind) == 0ull) {
    record[1] = value;
    record[2] = limit;
  }
}
