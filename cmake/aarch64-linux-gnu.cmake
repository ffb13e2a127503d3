# Cross build for 64-bit Arm on Debian (gcc-aarch64-linux-gnu), run under emulation (qemu-user-static). The libraries of
# the command and the tests come from the folder that scripts/fetch_arm64.sh fills.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

set(arm64_packages $ENV{FA_ARM64_PACKAGES})
if(NOT arm64_packages)
  set(arm64_packages $ENV{XDG_CACHE_HOME})
  if(NOT arm64_packages)
    set(arm64_packages $ENV{HOME}/.cache)
  endif()
  set(arm64_packages ${arm64_packages}/fastattention/arm64)
endif()

set(CMAKE_FIND_ROOT_PATH ${arm64_packages} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
# pkg-config looks nowhere else, and what it finds it finds under that folder.
set(ENV{PKG_CONFIG_DIR} "")
set(ENV{PKG_CONFIG_LIBDIR} ${arm64_packages}/usr/lib/aarch64-linux-gnu/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${arm64_packages})

# Which processor is QEMU_CPU's to say (tests/CMakeLists.txt).
set(CMAKE_CROSSCOMPILING_EMULATOR
  "qemu-aarch64-static;-L;/usr/aarch64-linux-gnu;-E;LD_LIBRARY_PATH=${arm64_packages}/usr/lib/aarch64-linux-gnu")
