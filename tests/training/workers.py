"""Starts the processes of a training on several workers of this machine."""

import json
import os
import socket
import subprocess
import sys

from tests import imports


def start(number, module, *arguments, gpus=False):
    """Starts a program in as many processes as there are workers.

    Args:
      number: of workers; the first is the chief. None for one process that
        knows of no others.
      module: of the program.
      *arguments: of the program.
      gpus: whether it sees the GPUs of this machine.
    """
    addresses = [f"localhost:{port}" for port in _free_ports(number or 0)]
    environments = [
        {
            "TF_CONFIG": json.dumps(
                {
                    "cluster": {"worker": addresses},
                    "task": {"type": "worker", "index": index},
                }
            )
        }
        for index in range(len(addresses))
    ]
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={
                **os.environ,
                "PYTHONPATH": str(imports.REPOSITORY),
                **({} if gpus else {"CUDA_VISIBLE_DEVICES": "-1"}),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments or [{}]
    ]


def finish(processes):
    """Waits for all processes; returns the last line that each printed."""
    lines = []
    try:
        for process in processes:
            stdout, stderr = process.communicate(timeout=300)
            assert process.returncode == 0, stderr[-3000:]
            lines.append(stdout.splitlines()[-1])
    finally:
        for process in processes:
            process.kill()
    return lines


def _free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
