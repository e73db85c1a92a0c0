# The journey of one event: its images are in the row, in one order of the styles, and the key is deleted.
drafts d1 d2

epoch
0@0 t=1000 {"eventType":"ContentCreated","jobId":"job-1","eventDraftId":"d1","imageUrls":{"trendy":"https://cdn/t.png","simple":"https://cdn/s.png","fancy":"https://cdn/f.png"}}
---
0@0 applied

d1: {"simple":"https://cdn/s.png","fancy":"https://cdn/f.png","trendy":"https://cdn/t.png"}, job job-1, t=1000; remembers job-1
d2: as it was; remembers none
deleted keys: d1
