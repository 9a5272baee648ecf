module.exports = {
  target: 'node',
  entry: './src/main.ts',
  externals: { express: 'commonjs express' },
  module: { rules: [{ test: /\.ts$/, use: 'ts-loader', exclude: /node_modules/ }] },
  resolve: { extensions: ['.ts', '.js'] },
};
