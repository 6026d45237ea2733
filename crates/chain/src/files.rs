//! The few file operations that the log needs, so that the simulator can put a failing disk under the real code.
