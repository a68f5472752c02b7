"""Masks of pictures as a JSON document: each an indexed PNG of the picture's own size, with the shares of its classes.

Pictures are predicted one after another, and large ones in tiles, so that memory is bounded by `Limits`.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.joined_mask import JoinedMask
from ripieno.data.mask_image import MaskBuilder, colour_code, mask_png
from ripieno.data.prediction_inputs import split_picture
from ripieno.server.event_loop import run_in_worker
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.limits import Limits, Permit
from ripieno.server.models import Model
from ripieno.server.oip_decode import InferenceRequest, RequestedOutput
from ripieno.server.prediction_document import DocumentOptions
from ripieno.server.signature import VERSION, ModelSignature

if TYPE_CHECKING:
    from ripieno.data.tiles import PictureSamples
    from ripieno.engine.inference_result import Answer


async def mask_document(
    model: Model,
    pictures: AsyncIterator[tuple[str, NDArray[np.generic]]],
    options: DocumentOptions,
    limits: Limits,
    permit: Permit,
) -> dict[str, Any]:
    """Predict the masks of named `pictures` (height, width, channels) of any size, and return the document.

    The memory of a picture and of its probabilities is counted by `permit` while it is predicted, that of finished
    masks until the response is written.
    Raises HttpError: 413 for pictures whose masks or tiles exceed the limit of a response, 503 where others hold too
    much memory, 504 when the time for all has passed, and errors of the engine. Sets of pixels are too large for a
    document: a coverage is 400.
    """
    if options.coverage is not None:
        raise bad_request("Sets of pixels are too large for a document. Request prediction_set as a tensor.")
    signature, entries, partial, room = model.signature, [], False, limits.reply
    start = time.perf_counter()
    try:
        async with asyncio.timeout(limits.timeout):
            async for name, pixels in pictures:
                split = (pixels, signature.input, options.resize, options.overlap)
                samples = await run_in_worker(pixels.nbytes, split_picture, *split)
                # a mask of noise cannot be compressed, and becomes a third larger as text
                room -= samples.shape[0] * samples.shape[1] * 4 // 3 * (1 + options.members * len(signature.members))
                if room < 0:
                    raise HttpError(413, f"The masks may exceed the limit of a response ({limits.reply}). Send fewer.")
                held = permit.held
                permit.expect(pixels.nbytes)
                masks = await _predict(model, samples, options, limits, permit)
                partial |= masks.partial
                entry = await run_in_worker(pixels.nbytes, masks.describe, name, options.top)
                permit.settle(held + sum(len(one["mask"]) for one in (entry, *entry.get("members", ()))))
                entries.append(entry)
                if "abstain" in entry:
                    model.stats.abstained[entry["abstain"]] += 1
    except TimeoutError:  # which cancels the request in flight, so that it is not counted there
        model.stats.failed(504, time.perf_counter() - start)
        raise HttpError(504, f"Timeout: no masks within {limits.timeout:g} s. Send smaller pictures.") from None
    document = {"model_name": signature.name, "model_version": VERSION, "predictions": entries}
    return {**document, "partial": True} if partial else document


async def _predict(
    model: Model, samples: PictureSamples, options: DocumentOptions, limits: Limits, permit: Permit
) -> _Masks:
    """Predict the samples of one picture, in as few requests as the limits allow."""
    signature = model.signature
    masks = _Masks(samples, signature, bool(options.uncertainty))
    sample_bytes = 4 * int(np.prod(signature.task.output)) * (1 + options.members * len(signature.members))
    most = min(limits.reply // sample_bytes, signature.max_samples)
    uncertainty = ("mutual_information",) if options.uncertainty else ()
    outputs = (signature.predictions, *(("spread", "members") if options.members else ()), *uncertainty)
    # twice: the answer of a group, and the rows of tiles that are blended
    permit.expect(2 * min(len(samples), max(1, most)) * sample_bytes)
    for group in samples.groups(max(1, most)):
        size = len(group) * sample_bytes
        if len(group) > most:
            raise HttpError(
                413,
                f"A row of {len(group)} tiles has {size} bytes of probabilities (limit {limits.reply}). "
                "Send a smaller picture, or resize=true.",
            )
        images = await run_in_worker(size, samples.samples, group)
        request = InferenceRequest(images, tuple(RequestedOutput(output) for output in outputs))
        answer = await model.answer(request, limits.timeout)
        await run_in_worker(size, masks.add, answer)
    return masks


class _Masks:
    """Masks of one picture: of the model, and of each member where these are wanted."""

    def __init__(self, samples: PictureSamples, signature: ModelSignature, uncertain: bool) -> None:
        self._samples, self._names = samples, signature.task.names
        self._own = JoinedMask(samples, len(self._names), signature.uncertainty if uncertain else None)
        self._members: dict[str, JoinedMask] | None = None
        """those that predicted all samples so far"""
        self.partial = False

    def add(self, answer: Answer) -> None:
        """Add the predictions of the next samples."""
        self.partial |= answer.partial
        self._own.add(answer.predictions, answer.std, answer.disagreement)
        if answer.member_predictions is None:
            return
        each = dict(zip(answer.members, answer.member_predictions, strict=True))
        if self._members is None:
            self._members = {member: JoinedMask(self._samples, len(self._names)) for member in each}
        self._members = {member: mask for member, mask in self._members.items() if member in each}
        for member, mask in self._members.items():
            mask.add(each[member])

    def describe(self, name: str, top: int) -> dict[str, Any]:
        """Return the entry of the picture, with the `top` classes that have the most pixels."""
        height, width = self._samples.shape
        entry = {"picture": name, "width": width, "height": height, **self._describe(self._own.builder, top)}
        if self._own.spread is not None:
            entry["spread"] = self._own.spread
        entry |= self._own.uncertainty
        if self._members is not None:
            entry["members"] = [
                {"member": member, **self._describe(mask.builder, top)} for member, mask in self._members.items()
            ]
        return entry

    def _describe(self, builder: MaskBuilder, top: int) -> dict[str, Any]:
        shares = builder.shares
        found = [int(i) for i in np.argsort(-shares, kind="stable")[:top] if shares[i]]
        return {
            "mask": base64.b64encode(mask_png(builder.mask)).decode(),
            "confidence": builder.confidence,
            "classes": {self._names[i]: float(shares[i]) for i in found},
            "colours": {self._names[i]: colour_code(i) for i in found},
        }
