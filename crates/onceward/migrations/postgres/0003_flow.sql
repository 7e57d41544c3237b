-- A flow is a lane of its own: one's backlog stands before nobody else's.
ALTER TABLE lane ADD COLUMN flow text NOT NULL DEFAULT '';
ALTER TABLE lane ADD UNIQUE (tenant, route, flow);
ALTER TABLE lane DROP CONSTRAINT lane_tenant_route_key;
-- Names in the order of their bytes, so that those with one beginning are a range.
CREATE INDEX setting_name ON setting (name COLLATE "C");
