//! The whole of `load` and `check`: the zero page field by field, initrds, files that are none, and a real kernel.

mod files;
mod initrd;
mod real;
mod zero_page;
