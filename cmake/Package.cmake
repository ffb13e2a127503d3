# What `cmake --install` lays down: library, header, command, CMake package, pkg-config file.
include(CMakePackageConfigHelpers)

if(SKBUILD)
  # A wheel holds no symbolic links: one plain file beside the Python modules.
  set_property(TARGET fastattention PROPERTY VERSION)
  set_property(TARGET fastattention PROPERTY SOVERSION)
  install(TARGETS fastattention LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  return()
endif()

install(TARGETS fastattention EXPORT fastattentionTargets)
install(DIRECTORY include/fastattention DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET fastattn)
  install(TARGETS fastattn)
  if(FA_WITH_GGML)
    install(FILES ${GGML_LICENSE} DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME LICENSE.ggml)
  endif()
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fastattention)
install(EXPORT fastattentionTargets NAMESPACE fastattention:: DESTINATION ${package_dir})
configure_package_config_file(cmake/fastattentionConfig.cmake.in
  ${PROJECT_BINARY_DIR}/fastattentionConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/fastattentionConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/fastattentionConfig.cmake
  ${PROJECT_BINARY_DIR}/fastattentionConfigVersion.cmake DESTINATION ${package_dir})

# ${pcfiledir} keeps the file right wherever the prefix is moved to.
file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/fastattention.pc.in ${PROJECT_BINARY_DIR}/fastattention.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/fastattention.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
