"""Logfire without its service: spans through a batch processor to /dev/null."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import logfire
from opentelemetry import trace
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from benchmarks import payload


class LogfireLocal:
    """Logfire without sending, printing, scrubbing or metrics: the minimum work per call."""

    def __init__(self) -> None:
        self._bound: list[object] = []
        out = Path("/dev/null").open("w")  # noqa: SIM115  # open as long as the process
        exporter = ConsoleSpanExporter(
            out=out, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
        self._processor = BatchSpanProcessor(
            exporter,
            max_queue_size=1_000_000,
            schedule_delay_millis=200,
            max_export_batch_size=1_000,
        )
        logfire.configure(
            send_to_logfire=False,
            console=False,
            metrics=False,
            scrubbing=False,
            inspect_arguments=False,
            additional_span_processors=[self._processor],
        )

    def bind(self, context: Mapping[str, str]) -> None:
        """Open a span for the job and one for the step, with the correlation id as baggage.

        This is Logfire's own way.
        """
        for bound in (
            logfire.set_baggage(correlation_id=context["correlation_id"]),
            logfire.span(context["operation"], job_id=context["job_id"]),
            logfire.span(context["step"], step_id=context["step_id"]),
        ):
            bound.__enter__()  # for the whole task
            self._bound.append(bound)  # without a reference it would end

    def burst(self, count: int) -> None:
        for number in range(count):
            logfire.info(
                payload.MESSAGE,
                vm=payload.VM,
                transferred=payload.TRANSFERRED + number,
                ratio=payload.RATIO,
                verified=True,
                path=payload.PATH,
            )

    def settle(self) -> None:
        trace.get_tracer_provider().force_flush()
