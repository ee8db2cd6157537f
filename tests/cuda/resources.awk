# What ptxas said (build/*/cuda/*.usage) as lines "kernel architecture registers spilled-bytes shared-bytes lanes
# occupancy": the per cent of a multiprocessor's warps that may be there at once (CUDA programming guide, "Technical
# Specifications per Compute Capability"). `dynamic` has "kernel bytes" of shared memory that launches ask for.
function smaller(a, b) {
    return a < b ? a : b
}
# lines: architecture, warps, blocks, KiB of shared memory of a multiprocessor
BEGIN {
    split("80 64 32 164\n86 48 16 100\n89 48 24 100\n90 64 32 228\n100 64 32 228\n120 48 24 100", lines, "\n")
    for (i in lines) {
        split(lines[i], words, " ")
        warps[words[1]] = words[2]
        blocks[words[1]] = words[3]
        shared_kib[words[1]] = words[4]
    }
    while (dynamic != "" && (getline line < dynamic) > 0) {
        split(line, words, " ")
        asked[words[1]] = words[2]
    }
}
/Compiling entry function/ {
    split($0, words, "'")
    kernel = words[2]
    architecture = substr(words[4], 4)
}
/bytes stack frame/ {
    spilled = $5 + $9
}
/Used [0-9]+ registers/ {
    registers = shared = 0
    for (i = 1; i < NF; i++) {
        registers = $(i + 1) == "registers," ? $i : registers
        shared = $(i + 1) == "bytes" && $(i + 2) ~ /^smem/ ? $i : shared
    }
    lanes = kernel # the first number of the name
    while (lanes !~ /^_[0-9]+(_|$)/) {
        lanes = substr(lanes, 2)
        sub(/^[^_]*/, "", lanes)
    }
    sub(/^_/, "", lanes)
    sub(/_.*/, "", lanes)
    shared += asked[kernel]
    sm = architecture
    sub(/[a-z]$/, "", sm)
    group = int((lanes + 31) / 32)
    # registers are given to warps in units of 256, shared memory in units of 1 KiB and 1 KiB more
    by_registers = int(int(65536 / (256 * int((registers * 32 + 255) / 256))) / group)
    by_shared = int(shared_kib[sm] / (int((shared + 1023) / 1024) + 1))
    groups = smaller(smaller(by_registers, by_shared), smaller(blocks[sm], int(warps[sm] / group)))
    print kernel, architecture, registers, spilled, shared, lanes, int(100 * groups * group / warps[sm])
}
