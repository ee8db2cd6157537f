# Cross-building for 64-bit ARM with Debian's gcc-aarch64-linux-gnu. LK_ARM_SYSROOT is the folder where tests/arm/run has
# unpacked the libraries; the programs run under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(LK_ARM_SYSROOT $ENV{LK_ARM_SYSROOT} CACHE PATH "Libraries and headers of the other machine")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES LK_ARM_SYSROOT)
set(CMAKE_SYSROOT ${LK_ARM_SYSROOT})
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L ${LK_ARM_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${LK_ARM_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${LK_ARM_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${LK_ARM_SYSROOT}/usr/share/pkgconfig)
