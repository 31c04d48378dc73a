// A kernel that refuses values outside 0 … limit - 1, for tests/test_faults.py.
#include "../../kernels/fault.cuh"

extern "C" __global__ void refuse(const long long* values, long long* record, long long count, long long kind, long long limit) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count && (values[i] < 0 || values[i] >= limit)) report_fault(record, kind, values[i], limit);
}
