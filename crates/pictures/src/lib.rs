//! Pictures for a sale's page: what an operator uploads becomes a few small files, and of the upload nothing else is kept.
//!
//! Bytes in, variants out. It neither reads nor writes anything, and speaks no HTTP. Every file is made from the pixels alone, so what a
//! camera or a program wrote beside them (place, time, names, comments, profiles) cannot be in it.

mod decode;
mod encode;

/// Bytes of an upload.
pub const UPLOAD_BYTES_MAX: usize = 8 << 20;
/// Pixels along either side of an upload.
pub const SIDE_MAX: u32 = 8_000;
/// Pixels of an upload, 40 million: whoever decodes them holds four bytes of each, and eight for a moment.
pub const PIXELS_MAX: u64 = 40_000_000;
/// Bytes that a decoder may take: [`PIXELS_MAX`] at four bytes, and what it needs beside them.
pub const DECODER_BYTES_MAX: u64 = 256 << 20;
/// How many times as high as wide a picture may be, so that every file can keep its budget.
pub const HEIGHT_PER_WIDTH_MAX: u32 = 2;

/// A width that pages ask for, and what a file of at most that width may weigh. A telephone of 360 pixels that draws two dots for each loads
/// the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels.
    pub width: u32,
    /// Bytes of either format.
    pub bytes_max: usize,
}

/// The sizes by ascending width.
pub const SIZES: [Size; 3] = [
    Size { width: 320, bytes_max: 20 * 1024 },
    Size { width: 640, bytes_max: 40 * 1024 },
    Size { width: 1_280, bytes_max: 120 * 1024 },
];

const _: () = assert!(PIXELS_MAX * 4 < DECODER_BYTES_MAX);
const _: () = assert!(PIXELS_MAX < SIDE_MAX as u64 * SIDE_MAX as u64);

/// In which form a variant is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// For every browser of today.
    Webp,
    /// For all others.
    Jpeg,
}

impl Format {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Webp, Self::Jpeg];

    /// How a file's name ends.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Webp => "webp",
            Self::Jpeg => "jpg",
        }
    }

    /// The format of files whose names end so.
    pub fn parse(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Webp => "image/webp",
            Self::Jpeg => "image/jpeg",
        }
    }
}

/// One picture in one width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The WebP file.
    pub webp: Vec<u8>,
    /// The JPEG file; what was transparent is white.
    pub jpeg: Vec<u8>,
}

impl Variant {
    /// The file of that format.
    pub fn file(&self, format: Format) -> &[u8] {
        match format {
            Format::Webp => &self.webp,
            Format::Jpeg => &self.jpeg,
        }
    }
}

/// Why an upload became no picture. Definite; the same bytes are refused again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// More bytes than [`UPLOAD_BYTES_MAX`].
    #[error("the file is too large: it has {found} bytes, and {UPLOAD_BYTES_MAX} are read at most; save it smaller")]
    TooManyBytes {
        /// Its bytes.
        found: usize,
    },
    /// Its first bytes are none of the three formats'.
    #[error("the file is no picture that can be used here: send a JPEG, PNG or WebP file")]
    NotAPicture,
    /// Too wide, too high or too many pixels; nothing of it was decoded.
    #[error(
        "the picture is too large: it says {width} x {height} pixels, and {SIDE_MAX} a side and {PIXELS_MAX} in all are decoded at most; \
         scale it down, 1280 wide is enough"
    )]
    TooManyPixels {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Decoding would take more memory than [`DECODER_BYTES_MAX`].
    #[error("the picture takes too much memory to decode: save it with 8 bits per channel, or smaller")]
    TooMuchMemory,
    /// Much higher than wide.
    #[error(
        "the picture is too high for a page: {width} x {height} pixels, and it may be {HEIGHT_PER_WIDTH_MAX} times as high as wide; crop it"
    )]
    TooHigh {
        /// Pixels, upright.
        width: u32,
        /// Pixels, upright.
        height: u32,
    },
    /// It begins like a picture and cannot be read to its end.
    #[error("the picture is damaged or cut short ({reason}): send the whole file, or save it anew")]
    Damaged {
        /// What the decoder said.
        reason: String,
    },
    /// The pixels could not be written in a format.
    #[error("the picture could not be written as {format} ({reason}): save it anew and send that")]
    Unwritable {
        /// The format's name.
        format: &'static str,
        /// What the encoder said.
        reason: String,
    },
}

/// Makes the variants of an uploaded JPEG, PNG or WebP file, by ascending width: the widths of [`SIZES`] that the picture has, and its own where
/// that is smaller than the last; it is never enlarged. Each file keeps the budget of its size. Of a file that moves, the first picture counts.
///
/// Takes up to a few seconds and a few times [`PIXELS_MAX`] bytes, so nobody should run many at once.
pub fn variants(upload: &[u8]) -> Result<Vec<Variant>, PictureError> {
    let picture = decode::upright(upload)?;
    if picture.height() > picture.width().saturating_mul(HEIGHT_PER_WIDTH_MAX) {
        return Err(PictureError::TooHigh { width: picture.width(), height: picture.height() });
    }
    let sizes = sizes_of(picture.width());
    // From the largest to the smallest, each from the one before: the upload itself is read once and then gone.
    let mut variants = Vec::with_capacity(sizes.len());
    let mut source = picture;
    for size in sizes.into_iter().rev() {
        source = encode::scaled(&source, size.width)?;
        variants.push(encode::variant(&source, size.bytes_max)?);
    }
    variants.reverse();
    Ok(variants)
}

/// The sizes for a picture of that width, by ascending width.
fn sizes_of(width: u32) -> Vec<Size> {
    let mut sizes: Vec<_> = SIZES.into_iter().filter(|size| size.width <= width).collect();
    // Its own, where it falls between two of them.
    let next = SIZES.into_iter().find(|size| size.width > width);
    sizes
        .extend(next.filter(|_| sizes.last().is_none_or(|last| last.width < width)).map(|next| Size { width, ..next }));
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_never_enlarged_and_its_own_width_has_the_budget_of_the_next() {
        let widths = |width| sizes_of(width).iter().map(|size| size.width).collect::<Vec<_>>();
        for (width, expected) in [
            (1, vec![1]),
            (319, vec![319]),
            (320, vec![320]),
            (321, vec![320, 321]),
            (640, vec![320, 640]),
            (1_000, vec![320, 640, 1_000]),
            (1_280, vec![320, 640, 1_280]),
            (8_000, vec![320, 640, 1_280]),
        ] {
            assert_eq!(widths(width), expected, "{width}");
            for size in sizes_of(width) {
                let of = SIZES.iter().find(|of| of.width >= size.width).unwrap();
                assert_eq!(size.bytes_max, of.bytes_max);
            }
        }
    }

    #[test]
    fn a_format_is_known_by_how_its_files_end() {
        for format in Format::ALL {
            assert_eq!(Format::parse(format.extension()), Some(format));
        }
        for unknown in ["", "jpeg", "WEBP", "png"] {
            assert_eq!(Format::parse(unknown), None);
        }
    }
}
