// The product of a tile by the tensor cores: d[64 x WIDTH] += a[64 x 16] * b[WIDTH x 16]^T (sm_90a).
//
// WIDTH, a multiple of 16 from 16 to 256, is defined by whoever includes this. Lane l of warp w (of
// four) holds, of row w * 16 + l / 4 + 8 * i and column 8 * j + l % 4 * 2 + c, d[j * 4 + i * 2 + c].
#pragma once
#include "common/common.cuh"

// Operands of each width; the descriptors come first, so that their names don't depend on it.
#define SUMS8(i)                                                                              \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define REGISTERS_16 "%3,%4,%5,%6,%7,%8,%9,%10"
#define REGISTERS_32 REGISTERS_16 ",%11,%12,%13,%14,%15,%16,%17,%18"
#define REGISTERS_48 REGISTERS_32 ",%19,%20,%21,%22,%23,%24,%25,%26"
#define REGISTERS_64 REGISTERS_48 ",%27,%28,%29,%30,%31,%32,%33,%34"
#define REGISTERS_80 REGISTERS_64 ",%35,%36,%37,%38,%39,%40,%41,%42"
#define REGISTERS_96 REGISTERS_80 ",%43,%44,%45,%46,%47,%48,%49,%50"
#define REGISTERS_112 REGISTERS_96 ",%51,%52,%53,%54,%55,%56,%57,%58"
#define REGISTERS_128 REGISTERS_112 ",%59,%60,%61,%62,%63,%64,%65,%66"
#define REGISTERS_144 REGISTERS_128 ",%67,%68,%69,%70,%71,%72,%73,%74"
#define REGISTERS_160 REGISTERS_144 ",%75,%76,%77,%78,%79,%80,%81,%82"
#define REGISTERS_176 REGISTERS_160 ",%83,%84,%85,%86,%87,%88,%89,%90"
#define REGISTERS_192 REGISTERS_176 ",%91,%92,%93,%94,%95,%96,%97,%98"
#define REGISTERS_208 REGISTERS_192 ",%99,%100,%101,%102,%103,%104,%105,%106"
#define REGISTERS_224 REGISTERS_208 ",%107,%108,%109,%110,%111,%112,%113,%114"
#define REGISTERS_240 REGISTERS_224 ",%115,%116,%117,%118,%119,%120,%121,%122"
#define REGISTERS_256 REGISTERS_240 ",%123,%124,%125,%126,%127,%128,%129,%130"
#define SUMS_16 SUMS8(0)
#define SUMS_32 SUMS_16, SUMS8(8)
#define SUMS_48 SUMS_32, SUMS8(16)
#define SUMS_64 SUMS_48, SUMS8(24)
#define SUMS_80 SUMS_64, SUMS8(32)
#define SUMS_96 SUMS_80, SUMS8(40)
#define SUMS_112 SUMS_96, SUMS8(48)
#define SUMS_128 SUMS_112, SUMS8(56)
#define SUMS_144 SUMS_128, SUMS8(64)
#define SUMS_160 SUMS_144, SUMS8(72)
#define SUMS_176 SUMS_160, SUMS8(80)
#define SUMS_192 SUMS_176, SUMS8(88)
#define SUMS_208 SUMS_192, SUMS8(96)
#define SUMS_224 SUMS_208, SUMS8(104)
#define SUMS_240 SUMS_224, SUMS8(112)
#define SUMS_256 SUMS_240, SUMS8(120)
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

// - a, b: operands in shared memory, as wgmma_operand describes them.
// - adds: nonzero to add to d, zero to write it.
__device__ __forceinline__ void multiply(float (&d)[WIDTH / 2], u64 a, u64 b, int adds) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.s32 p, %2, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n" TEXT(WIDTH) "k16.f32." MMA_TYPE "." MMA_TYPE
                 " {" JOIN(REGISTERS_, WIDTH) "}, %0, %1, p, 1, 1, 0, 0;\n}"
                 : "+l"(a), "+l"(b), "+r"(adds), JOIN(SUMS_, WIDTH));
}
