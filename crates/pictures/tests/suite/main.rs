//! Uploads of every kind become small files of bare pixels, or are refused with words.

mod files;
mod hostile;
mod uploads;
