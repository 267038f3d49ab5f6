# The Debian package: what belongs to it, and cpack's settings. `./dev package` makes it.
set(generated ${CMAKE_BINARY_DIR}/package_files)
set(debian ${CMAKE_CURRENT_LIST_DIR})
set(systemd ${PROJECT_SOURCE_DIR}/docker/systemd)

# The manual page and the completions come from the program's own description of its commands.
add_custom_target(package_files
  COMMAND ${CMAKE_COMMAND} -E make_directory ${generated}
  COMMAND echofs man > ${generated}/echofs.1
  COMMAND echofs completion bash > ${generated}/echofs.bash
  COMMAND echofs completion zsh > ${generated}/_echofs
  COMMAND echofs completion fish > ${generated}/echofs.fish
  COMMAND gzip -9nf ${generated}/echofs.1
  COMMAND gzip -9nc ${debian}/changelog > ${generated}/changelog.gz
  VERBATIM)
add_dependencies(package_files echofs)

install(TARGETS echofs RUNTIME DESTINATION bin)
install(FILES ${generated}/echofs.1.gz DESTINATION share/man/man1)
install(FILES ${generated}/echofs.bash DESTINATION share/bash-completion/completions RENAME echofs)
install(FILES ${generated}/_echofs DESTINATION share/zsh/vendor-completions)
install(FILES ${generated}/echofs.fish DESTINATION share/fish/vendor_completions.d)
install(FILES ${systemd}/echofs.service ${systemd}/echofs-lease-server.service
  DESTINATION lib/systemd/system)
install(FILES ${generated}/changelog.gz ${debian}/copyright ${PROJECT_SOURCE_DIR}/README.md
  ${PROJECT_SOURCE_DIR}/docs/guarantees.md ${PROJECT_SOURCE_DIR}/docs/operations.md
  DESTINATION share/doc/echofs)
install(FILES ${debian}/echofs.yml DESTINATION /etc/echofs)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME echofs)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "the echofs authors <maintainers@echofs.example>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "file system for SQLite that replicates")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"An application opens its SQLite database in a mount of echofs and changes
nothing else. One node takes writes; every committed transaction is sent to the
other nodes, where applications can read it a moment later. When the primary is
lost, another node takes its place.")
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_SET_DESTDIR ON)  # for /etc
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION database)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS fuse3)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${debian}/conffiles ${debian}/postinst ${debian}/prerm ${debian}/postrm)
include(CPack)
