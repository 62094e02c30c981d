/* Makes GCC store the whole of what ldtilecfg reads.
 *
 * Before its releases 11.5, 12.4, 13.3 and 14, GCC's _tile_loadconfig named 8 of the 64 bytes as its
 * operand (amxtileintrin.h), so the rest of a configuration was never written, and llama.cpp's AMX
 * kernels (ggml/src/ggml-cpu/amx) ended the process. Give it to the compiler of llama.cpp with
 * -include; the text below is how mofa-gguf knows a library that was built with it.
 */
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)))
__attribute__((used)) static const char mofa_gguf_tile_config[] = "mofa-gguf: whole tile configuration";
#endif
