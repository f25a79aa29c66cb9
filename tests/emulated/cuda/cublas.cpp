// libcublas.so.13 and libcublasLt.so.13: handles, and what torch sets on them. No product is ever computed here
// (operators.cpp does); generate.py adds the functions that would, each of which tells the log that it was called.
#include <cublasLt.h>
#include <cublas_v2.h>

#undef EXPORTED
#define EXPORTED extern "C" __attribute__((visibility("default")))

// Every handle is another one, as torch keeps a workspace for each: a thread that multiplies has its own.
static void *new_handle() { return new char; }

#ifndef LT
EXPORTED cublasStatus_t cublasCreate_v2(cublasHandle_t *made) {
  *made = (cublasHandle_t)new_handle();
  return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasDestroy_v2(cublasHandle_t) { return CUBLAS_STATUS_SUCCESS; }
EXPORTED cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }
EXPORTED cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *, size_t) { return CUBLAS_STATUS_SUCCESS; }
EXPORTED cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }
EXPORTED cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t, cublasPointerMode_t) { return CUBLAS_STATUS_SUCCESS; }
EXPORTED cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t) { return CUBLAS_STATUS_SUCCESS; }

EXPORTED cublasStatus_t cublasGetStream_v2(cublasHandle_t, cudaStream_t *stream) {
  *stream = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasGetMathMode(cublasHandle_t, cublasMath_t *mode) {
  *mode = CUBLAS_DEFAULT_MATH;
  return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t, cublasPointerMode_t *mode) {
  *mode = CUBLAS_POINTER_MODE_HOST;
  return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int *version) {
  *version = CUBLAS_VERSION;
  return CUBLAS_STATUS_SUCCESS;
}
#else
EXPORTED cublasStatus_t cublasLtCreate(cublasLtHandle_t *made) {
  *made = (cublasLtHandle_t)new_handle();
  return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
EXPORTED size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
EXPORTED size_t cublasLtGetCudartVersion() { return CUBLAS_VERSION; }
#endif
