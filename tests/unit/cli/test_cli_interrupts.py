"""Whoever interrupts a command is not kept waiting by what it leaves behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from onnx_operator.cli import interrupts


def test_what_is_not_interrupted_answers_as_ever() -> None:
    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    assert interrupts.run(main()) == 7


def test_what_fails_fails_as_ever() -> None:
    async def main() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        interrupts.run(main())


def test_an_interrupt_ends_what_never_would() -> None:
    script = """
        import asyncio, sys
        from onnx_operator.cli import interrupts

        async def deaf():
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        async def main():
            background = asyncio.create_task(deaf())
            print("running", flush=True)
            await asyncio.sleep(60)

        try:
            interrupts.run(main())
        except KeyboardInterrupt:
            sys.exit(130)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=dict(os.environ), text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()

    assert process.returncode == 130
    assert told == ""
