//! A body that ends half-way, though its length was announced whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::BoxError;

/// Half of another body.
pub struct Cut<B> {
    inner: B,
    left: u64,
    announced: SizeHint,
}

impl<B: Body> Cut<B> {
    pub fn new(inner: B) -> Self {
        let announced = inner.size_hint();
        let left = announced.exact().unwrap_or(4096) / 2;
        Self { inner, left, announced }
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Cut<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(Some(Err("cut".into())));
        }
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let take = (data.len() as u64).min(this.left);
                    this.left -= take;
                    Poll::Ready(Some(Ok(Frame::data(data.slice(..take as usize)))))
                }
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            other => other,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.clone()
    }
}
