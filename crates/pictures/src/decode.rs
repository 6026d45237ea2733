//! From a file to upright pixels. What a file claims is judged before anything is decoded.

use std::io::Cursor;

use image::error::{ImageError, LimitErrorKind};
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbaImage};

use crate::{DECODER_BYTES_MAX, PIXELS_MAX, PictureError, SIDE_MAX, UPLOAD_BYTES_MAX};

/// The first picture of a file, turned as its camera was held.
pub(crate) fn upright(upload: &[u8]) -> Result<RgbaImage, PictureError> {
    if upload.len() > UPLOAD_BYTES_MAX {
        return Err(PictureError::TooManyBytes { found: upload.len() });
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    // Its width and height are judged here, with words of ours.
    let mut reader = ImageReader::with_format(Cursor::new(upload), format_of(upload)?);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refused)?;
    let (width, height) = decoder.dimensions();
    if width > SIDE_MAX || height > SIDE_MAX || u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(PictureError::TooManyPixels { width, height });
    }
    if width == 0 || height == 0 {
        return Err(PictureError::Damaged { reason: "it has no pixels".to_owned() });
    }
    // It holds all pixels at once.
    if decoder.total_bytes() > DECODER_BYTES_MAX {
        return Err(PictureError::TooMuchMemory);
    }
    let orientation = decoder.orientation().map_err(refused)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(refused)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgba8())
}

/// The format by the file's first bytes; nothing else about it is believed.
fn format_of(upload: &[u8]) -> Result<ImageFormat, PictureError> {
    match image::guess_format(upload) {
        Ok(ImageFormat::Jpeg) if ends_early(upload) => {
            Err(PictureError::Damaged { reason: "its end is missing".to_owned() })
        }
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        Ok(_) | Err(_) => Err(PictureError::NotAPicture),
    }
}

/// Whether a JPEG's last scan has no end behind it: its decoder would fill what is missing with grey and say nothing. Neither mark can
/// stand inside a scan.
fn ends_early(jpeg: &[u8]) -> bool {
    let last = |mark: [u8; 2]| jpeg.windows(2).rposition(|pair| pair == mark);
    let (scan, end) = (last([0xff, 0xda]), last([0xff, 0xd9]));
    end.is_none() || scan > end
}

fn refused(error: ImageError) -> PictureError {
    match error {
        ImageError::Limits(limit) if matches!(limit.kind(), LimitErrorKind::InsufficientMemory) => {
            PictureError::TooMuchMemory
        }
        error => PictureError::Damaged { reason: error.to_string() },
    }
}
