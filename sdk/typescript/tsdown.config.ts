import { defineConfig } from "tsdown";

export default defineConfig({
  entry: ["src/index.ts", "src/express.ts", "src/testing.ts"],
  format: ["esm", "cjs"],
  platform: "neutral",
  target: "es2022",
  dts: true,
  clean: true,
  fixedExtension: false,
});
