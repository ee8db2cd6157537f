#include "tests/cuda/emulator/shadow.h"

#include <cstring>
#include <vector>

#include "tests/cuda/emulator/emulator.h"

namespace {

constexpr unsigned START = 1024; /* EMULATOR_SHARED_START of device.h */
constexpr int NOBODY = -1, SEVERAL = -2;

struct word {
    int writer = NOBODY, reader = NOBODY, copier = NOBODY;
    unsigned written = 0, read = 0; /* after how many barriers */
    bool initialised = false;
};

alignas(64) char memory[EMULATOR_MAX_SHARED];
std::vector<word> words;
unsigned size, barriers;

bool begin(unsigned address, unsigned bytes, int line) {
    if (!shadow_is_inside(address, bytes)) {
        emulator_problem(line, "out of bounds: %u bytes at %u of %u of shared memory", bytes, address - START, size);
        return false;
    }
    return true;
}

/* Two accesses of which one writes, by two lanes, with no barrier between them. */
void check_write(word &of, unsigned at, int lane, int line) {
    if (of.copier != NOBODY && of.copier != lane) {
        emulator_problem(line, "race: byte %u is written while lane %d's copy to it is under way", at, of.copier);
    } else if (of.writer != NOBODY && of.writer != lane && of.written == barriers) {
        emulator_problem(line, "race: byte %u was written by lane %d since the last barrier", at, of.writer);
    } else if (of.reader != NOBODY && of.reader != lane && of.read == barriers) {
        emulator_problem(line, "race: byte %u was read by another lane since the last barrier", at);
    }
}

} // namespace

void shadow_reset(unsigned bytes) {
    size = bytes <= EMULATOR_MAX_SHARED ? bytes : EMULATOR_MAX_SHARED;
    words.assign((size + 3) / 4, word());
    std::memset(memory, 0xff, size);
    barriers = 1;
}

void shadow_barrier() {
    barriers++;
}

bool shadow_is_inside(unsigned address, unsigned bytes) {
    return address >= START && address - START <= size && bytes <= size - (address - START);
}

char *shadow_bytes(unsigned address) {
    return memory + (address - START);
}

void shadow_read(unsigned address, unsigned bytes, void *to, unsigned lane, int line) {
    if (!begin(address, bytes, line)) {
        return;
    }
    std::memcpy(to, shadow_bytes(address), bytes);
    for (unsigned at = address - START; at < address - START + bytes; at += 4) {
        word &of = words[at / 4];
        int self = (int)lane;
        if (of.copier != NOBODY) {
            emulator_problem(line, "race: byte %u is read while lane %d's copy to it is under way", at, of.copier);
        } else if (!of.initialised) {
            emulator_problem(line, "uninitialised: byte %u is read before it is written", at);
        } else if (of.writer != self && of.written == barriers) {
            emulator_problem(line, "race: byte %u was written by lane %d since the last barrier", at, of.writer);
        }
        of.reader = of.read == barriers && of.reader != NOBODY && of.reader != self ? SEVERAL : self;
        of.read = barriers;
    }
}

void shadow_write(unsigned address, unsigned bytes, unsigned lane, int line) {
    if (!begin(address, bytes, line)) {
        return;
    }
    for (unsigned at = address - START; at < address - START + bytes; at += 4) {
        word &of = words[at / 4];
        check_write(of, at, (int)lane, line);
        of.writer = (int)lane;
        of.written = barriers;
        of.initialised = true;
    }
}

void shadow_copy_begins(unsigned address, unsigned lane, int line) {
    for (unsigned at = address - START; at < address - START + 16; at += 4) {
        word &of = words[at / 4];
        check_write(of, at, (int)lane, line);
        of.copier = (int)lane;
    }
}

void shadow_copy_ends(unsigned address, unsigned lane) {
    for (unsigned at = address - START; at < address - START + 16; at += 4) {
        word &of = words[at / 4];
        of.copier = NOBODY;
        of.writer = (int)lane;
        of.written = barriers;
        of.initialised = true;
    }
}
