"""FP32 to FP16 and INT8: conversion, what it costs and where."""
