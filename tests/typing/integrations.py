"""Uses what web applications, command lines and HTTP clients take, as the docs have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import click
import flask
import httpx
import requests
import typer
from fastapi import FastAPI
from starlette.applications import Starlette

import structjob
import structjob.asgi
import structjob.click
import structjob.http
import structjob.web
import structjob.wsgi
from structjob import asgi

tracker = structjob.Tracker("sqlite:///jobs.db")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield


service = FastAPI(lifespan=asgi.lifespan("sqlite:///jobs.db", service="shop", then=lifespan))
asgi.install(service)
service.mount("/ops", structjob.web.app("sqlite:///jobs.db"))
plain = Starlette(lifespan=asgi.lifespan("sqlite:///jobs.db"))
asgi.install(plain, tracker, trust="all", jobs="changes")
plain.add_middleware(asgi.JobMiddleware)
wrapped = asgi.JobMiddleware(plain)

site = flask.Flask("site")
site.wsgi_app = structjob.wsgi.JobMiddleware(site.wsgi_app, tracker)  # type: ignore[method-assign]


@click.group()
def cli() -> None:
    pass


structjob.click.tracked(cli, "sqlite:///jobs.db")
terminal = typer.Typer()
structjob.click.tracked(terminal, "sqlite:///jobs.db")()

sync_client: httpx.Client = structjob.http.propagate(httpx.Client())
client: httpx.AsyncClient = structjob.http.propagate(httpx.AsyncClient(), hosts=[".internal"])
session: requests.Session = structjob.http.propagate(requests.Session())


async def fetch() -> None:
    middleware = structjob.http.aiohttp_middleware()
    async with aiohttp.ClientSession(middlewares=[middleware]) as http:
        async with http.get("http://127.0.0.1/") as answer:
            await answer.text()
